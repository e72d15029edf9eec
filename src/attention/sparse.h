// Sparse attention of one head: each query has a list of keys and touches only those, forward and
// backward. The patterns differ only in the source of the lists: positions alone (pattern.h; a
// dropped score is never computed), the scores, or random numbers (choose.h).
//
// Forward keeps the lists and the kept probabilities for the backward: T·k numbers, not T·T.
#pragma once

#include "attention/head.h"
#include "attention/pattern.h"

namespace focus::sparse {

// s: (nnz) out, the scores at the listed keys, unscaled.
template <class T>
void score_listed_keys(const Head<T>& head, const int* begin, const int* keys, T* s) {
  for (int i = 0; i < head.length; ++i)
    for (int e = begin[i]; e < begin[i + 1]; ++e)
      s[e] = dot(head.q + i * head.stride, head.k + keys[e] * head.stride, head.width);
}

// p: (nnz) in: scores, out: probabilities; keep: (nnz) mask or nullptr; o: (T,D) out.
template <class T>
void forward(const Head<T>& head, const int* begin, const int* keys, T* p, const uint8_t* keep,
             T keep_scale, T* o) {
  const int D = head.width;
  //@ gap 04 sparse-forward
  for (int i = 0; i < head.length; ++i) {
    T* out = o + i * head.stride;
    std::fill(out, out + D, T(0));
    softmax_row(p + begin[i], p + begin[i], begin[i + 1] - begin[i], head.scale);
    for (int e = begin[i]; e < begin[i + 1]; ++e) {
      const T weight = !keep ? p[e] : keep[e] ? keep_scale * p[e] : T(0);
      add_scaled(out, head.v + keys[e] * head.stride, weight, D);
    }
  }
  //@ end
}

// Adds to dq, dk, dv: the formulas of full::backward with every sum over the listed keys only.
// dp: scratch of T numbers (the longest list).
template <class T>
void backward(const Head<T>& head, const HeadGradients<T>& d, const int* begin, const int* keys,
              const T* p, const uint8_t* keep, T keep_scale, const T* d_o, T* dp) {
  const int D = head.width;
  const ptrdiff_t stride = head.stride;
  for (int i = 0; i < head.length; ++i) {
    const int first = begin[i], count = begin[i + 1] - first;
    const T *d_out = d_o + i * stride, *q = head.q + i * stride;
    //@ gap 04 sparse-backward
    for (int e = 0; e < count; ++e) {
      const ptrdiff_t key = keys[first + e] * stride;
      const T kept = !keep ? T(1) : keep[first + e] ? keep_scale : T(0);
      dp[e] = kept * dot(d_out, head.v + key, D);
      add_scaled(d.dv + key, d_out, kept * p[first + e], D);
    }
    softmax_row_backward(dp, dp, p + first, count, head.scale);
    for (int e = 0; e < count; ++e) {
      const ptrdiff_t key = keys[first + e] * stride;
      add_scaled(d.dq + i * stride, head.k + key, dp[e], D);
      add_scaled(d.dk + key, q, dp[e], D);
    }
    //@ end
  }
}

}  // namespace focus::sparse
