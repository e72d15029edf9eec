// Sparse attention of one head: each query has a list of keys and touches only those, forward and
// backward. Where the lists come from is all that tells the patterns apart: from positions alone
// (pattern.h; a dropped score is never computed), or from the scores or random numbers (choose.h).
//
// Forward keeps the lists and the kept probabilities for the backward: T·k numbers, not T·T.
#pragma once

#include "attention/head.h"
#include "attention/pattern.h"

namespace focus::sparse {

// s: (entries) out, the scores at the listed keys, unscaled.
template <class T>
void score_listed_keys(const Head<T>& head, const int* begin, const int* keys, T* s) {
  for (int i = 0; i < head.length; ++i)
    for (int e = begin[i]; e < begin[i + 1]; ++e)
      s[e] = dot(head.q + i * head.stride, head.k + keys[e] * head.stride, head.width);
}

// p: (entries) in: scores, out: probabilities; keep: (entries) mask or nullptr; o: (T,D) out.
template <class T>
void forward(const Head<T>& head, const int* begin, const int* keys, T* p, const uint8_t* keep,
             T keep_scale, T* o) {
  const int D = head.width;
  //@ begin 04 sparse-forward points=5
  //@ plan For each query i, whose entries are e = begin[i] ... begin[i+1] - 1:
  //@ plan 1. p[e] holds scores: turn them into the softmax of this list alone, with head.scale.
  //@ plan 2. Row i of o (D numbers, rows head.stride apart): the sum of weight * row keys[e] of V.
  //@ plan    The weight is p[e]; with dropout (keep is not nullptr) it is keep_scale * p[e] where
  //@ plan    keep[e] is set and 0 elsewhere. p itself stays undropped.
  //@ hint 1 The list says 7, 8, 9. Which row of V belongs to its first entry? And what is in row i
  //@ hint 1 of o before you add the first value to it?
  //@ hint 2 README, "Lists instead of masks": o_i. softmax_row is lesson 01's, add_scaled (y +=
  //@ hint 2 factor x) is in src/tensor/simd.h; score_listed_keys above walks through the lists in
  //@ hint 2 the same way.
  //@ hint 3 for i from 0 to length - 1:
  //@ hint 3   out = o + i * head.stride; set its D numbers to 0
  //@ hint 3   softmax_row from p + begin[i] to itself, begin[i+1] - begin[i] numbers, head.scale
  //@ hint 3   for e from begin[i] to begin[i+1] - 1:
  //@ hint 3     weight = p[e] without dropout; else keep_scale times p[e] if keep[e] is set, or 0
  //@ hint 3     add_scaled: out += weight times (head.v + keys[e] * head.stride), D numbers
  //@ notice Five entries a query mean five rows of V, whatever the length: the work is T·k and not
  //@ notice T².
  for (int i = 0; i < head.length; ++i) {
    T* out = o + i * head.stride;
    std::fill(out, out + D, T(0));
    //@ mutant sparse-softmax-over-all: the weights sum to 1 over all keys, not over the kept
    //~ T total = 0;
    //~ for (ptrdiff_t j = 0, at = i * head.stride; j < head.length; ++j)
    //~   total += std::exp(head.scale * dot(head.q + at, head.k + j * head.stride, D));
    //~ for (int e = begin[i]; e < begin[i + 1]; ++e) p[e] = std::exp(head.scale * p[e]) / total;
    softmax_row(p + begin[i], p + begin[i], begin[i + 1] - begin[i], head.scale);
    for (int e = begin[i]; e < begin[i + 1]; ++e) {
      //@ mutant sparse-undropped-output: the output is made from the weights before dropout
      //~ const T weight = p[e];
      const T weight = !keep ? p[e] : keep[e] ? keep_scale * p[e] : T(0);
      //@ mutant sparse-value-of-place: the value at the key's place in the list
      //~ add_scaled(out, head.v + (e - begin[i]) * head.stride, weight, D);
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
    //@ begin 04 sparse-backward points=5
    //@ plan For query i, with `count` entries from `first` on; d_out and q are rows i of dO and Q:
    //@ plan 1. For each entry e: dp[e] = factor * (d_out · its value), and that key's row of d.dv
    //@ plan    += factor * p * d_out. The factor of dropout is 1 without it, else keep_scale or 0.
    //@ plan 2. dp becomes ds: softmax_row_backward over the list, in place, with head.scale.
    //@ plan 3. For each entry e: row i of d.dq += ds * its key; row of that key of d.dk += ds * q.
    //@ hint 1 Key j stands in the lists of several queries. What becomes of dk_j, if a query sets
    //@ hint 1 it where it should add?
    //@ hint 2 README, "Lists instead of masks": dp_ij, ds_i, dq_i, dk_j. Lesson 03's
    //@ hint 2 full::backward has the same steps with sums over all keys; dot and add_scaled are in
    //@ hint 2 src/tensor/simd.h.
    //@ hint 3 for e from 0 to count - 1:
    //@ hint 3   key = keys[first + e] * stride
    //@ hint 3   kept = 1 without dropout; else keep_scale if keep[first + e] is set, or 0
    //@ hint 3   dp[e] = kept times dot(d_out, head.v + key, D)
    //@ hint 3   add_scaled: d.dv + key += (kept times p[first + e]) times d_out, D numbers
    //@ hint 3 softmax_row_backward from dp to dp with p + first, count numbers, head.scale
    //@ hint 3 for e from 0 to count - 1:
    //@ hint 3   key = keys[first + e] * stride
    //@ hint 3   add_scaled: d.dq + i * stride += dp[e] times (head.k + key), D numbers
    //@ hint 3   add_scaled: d.dk + key += dp[e] times q, D numbers
    //@ notice A key outside the list is never touched, so its gradient from this query is exactly
    //@ notice zero; not even a NaN there could come through.
    for (int e = 0; e < count; ++e) {
      const ptrdiff_t key = keys[first + e] * stride;
      const T kept = !keep ? T(1) : keep[first + e] ? keep_scale : T(0);
      //@ mutant sparse-ds-undropped: the softmax hears of weights that dropout had removed
      //~ dp[e] = dot(d_out, head.v + key, D);
      dp[e] = kept * dot(d_out, head.v + key, D);
      //@ mutant sparse-dv-undropped: dV from P where it should be from dropout(P)
      //~ add_scaled(d.dv + key, d_out, p[first + e], D);
      add_scaled(d.dv + key, d_out, kept * p[first + e], D);
    }
    //@ mutant sparse-ds-no-mean: the softmax's Jacobian without its - p pᵀ
    //~ for (int e = 0; e < count; ++e) dp[e] *= head.scale * p[first + e];
    softmax_row_backward(dp, dp, p + first, count, head.scale);
    for (int e = 0; e < count; ++e) {
      const ptrdiff_t key = keys[first + e] * stride;
      add_scaled(d.dq + i * stride, head.k + key, dp[e], D);
      //@ mutant sparse-dk-missing: the keys get no gradient
      //@ mutant sparse-dropped-key-hears: a key beside the list gets a gradient
      //~ add_scaled(d.dk + (key + stride) % (head.length * stride), q, dp[e], D);
      add_scaled(d.dk + key, q, dp[e], D);
    }
    //@ end
  }
}

}  // namespace focus::sparse
