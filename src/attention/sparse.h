// Sparse attention of one head: each query has a list of keys and touches only those, forward and
// backward. Where the lists come from is all that tells the patterns apart:
//   banded, block   positions alone; a dropped score is never computed
//   topk, bottomk   all scores of a block of queries, then a selection; nothing else is dense
//   random          random numbers
//
// Forward keeps the lists and the kept probabilities for the backward: T·k numbers, not T·T.
#pragma once

#include <limits>

#include "attention/head.h"
#include "attention/pattern.h"
#include "attention/selection.h"

namespace focus::sparse {

inline constexpr int block_rows = 48;  // queries whose scores are computed together

// Scratch of one thread: `numbers` of T, `ints`.
struct Scratch {
  size_t numbers, ints;
};
template <class T>
Scratch scratch_size(int length, int width) {
  const size_t padded = size_t(round_up_to_lanes<T>(length));
  return {padded * size_t(width) + block_rows * padded + longest_list, size_t(length)};
}

// keys: (T,k) out, the k largest scores of each query (with `smallest` the k smallest), ascending.
// s: (entries) out, the scores at those keys, unscaled; NaN for a query that has a NaN score.
template <class T>
void choose_by_score(const Head<T>& head, int k, bool smallest, int* keys, T* s, T* scratch,
                     int* order) {
  const int N = head.length, D = head.width, padded = round_up_to_lanes<T>(N);
  T* kt = scratch;
  T* scores = kt + size_t(padded) * size_t(D);
  T* best = scores + block_rows * size_t(padded);
  transpose(N, D, head.k, head.stride, kt, padded);
  for (int i0 = 0; i0 < N; i0 += block_rows) {
    const int rows = std::min(block_rows, N - i0);
    gemm(rows, padded, D, row_major(head.q + i0 * head.stride, head.stride), kt, padded, scores,
         padded, GemmStart::zero);
    for (int i = 0; i < rows; ++i) {
      T* row = scores + ptrdiff_t{i} * padded;
      int* kept = keys + ptrdiff_t{i0 + i} * k;
      T* kept_scores = s + ptrdiff_t{i0 + i} * k;
      if (smallest)
        for (int j = 0; j < N; ++j) row[j] = -row[j];
      const bool valid = select_largest(row, N, k, kept, best, order);
      for (int e = 0; e < k; ++e)
        kept_scores[e] = !valid     ? std::numeric_limits<T>::quiet_NaN()
                         : smallest ? -row[kept[e]]
                                    : row[kept[e]];
    }
  }
}

// s: (entries) out, the scores at the listed keys, unscaled.
template <class T>
void score_listed_keys(const Head<T>& head, const int* begin, const int* keys, T* s) {
  for (int i = 0; i < head.length; ++i)
    for (int e = begin[i]; e < begin[i + 1]; ++e)
      s[e] = dot(head.q + i * head.stride, head.k + keys[e] * head.stride, head.width);
}

// A key that was drawn twice counts once: its second entry gets score -inf, hence weight 0.
template <class T>
void collapse_doubles(int length, int k, const int* keys, T* s) {
  for (int i = 0; i < length; ++i)
    for (int e = i * k + 1; e < (i + 1) * k; ++e)
      if (keys[e] == keys[e - 1]) s[e] = -std::numeric_limits<T>::infinity();
}

// p: (entries) in: scores, out: probabilities; keep: (entries) mask or nullptr; o: (T,D) out.
template <class T>
void forward(const Head<T>& head, const int* begin, const int* keys, T* p, const uint8_t* keep,
             T keep_scale, T* o) {
  const int D = head.width;
  for (int i = 0; i < head.length; ++i) {
    T* out = o + i * head.stride;
    std::fill(out, out + D, T(0));
    softmax_row(p + begin[i], p + begin[i], begin[i + 1] - begin[i], head.scale);
    for (int e = begin[i]; e < begin[i + 1]; ++e) {
      const T weight = !keep ? p[e] : keep[e] ? keep_scale * p[e] : T(0);
      add_scaled(out, head.v + keys[e] * head.stride, weight, D);
    }
  }
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
  }
}

}  // namespace focus::sparse
