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

inline constexpr int block_queries = 64;  // queries whose scores are computed together
static_assert(block_queries % lanes<float> == 0 && block_queries % lanes<double> == 0);

// Scratch of one thread: `numbers` of T, `ints`.
struct Scratch {
  size_t numbers, ints;
};
template <class T>
Scratch scratch_size(int length, int width) {
  return {size_t(block_queries) * size_t(width + length + 1), size_t(length)};
}

// The lists of up to `lanes` queries, from their columns of scores.
template <class T>
void choose_block(const T* scores, int N, int k, int rows, int* keys, T* s, T* column, int* order) {
  FastLists<T> lists;
  const bool fast = k <= longest_fast_list;
  if (fast) select_largest_of_lanes(scores, block_queries, N, k, lists);
  //@ begin 05 choose-block
  for (int i = 0; i < rows; ++i) {
    int* kept = keys + ptrdiff_t{i} * k;
    bool valid;
    if (fast) {
      for (int l = 0; l < k; ++l) kept[l] = int(lists.key[l][i]);
      //@ mutant keys-by-score: the kept keys in the order of their scores
      std::sort(kept, kept + k);
      //@ mutant nan-not-told: a row with a NaN passes for valid
      //~ valid = true;
      valid = !lists.has_nan[i];
    } else {
      for (ptrdiff_t j = 0; j < N; ++j) column[j] = scores[j * block_queries + i];
      valid = select_largest(column, N, k, kept, order);
    }
    //@ mutant(3) scores-of-other-keys: scores from largest to smallest beside ascending keys
    //~ for (int e = 0; e < k; ++e)
    //~   s[ptrdiff_t{i} * k + e] = !valid ? std::numeric_limits<T>::quiet_NaN()
    //~                             : fast ? lists.best[e][i]
    //~                                    : scores[ptrdiff_t{kept[e]} * block_queries + i];
    for (int e = 0; e < k; ++e)
      s[ptrdiff_t{i} * k + e] = valid ? scores[ptrdiff_t{kept[e]} * block_queries + i]
                                      : std::numeric_limits<T>::quiet_NaN();
  }
  //@ end
}

// keys: (T,k) out, the k largest scores of each query (with `smallest` the k smallest), ascending.
// s: (T,k) out, the scores at those keys, unscaled; NaN for a query that has a NaN score.
template <class T>
void choose_by_score(const Head<T>& head, int k, bool smallest, int* keys, T* s, T* scratch,
                     int* order) {
  const int N = head.length, D = head.width;
  T* qt = scratch;                                    // Qᵀ of a block, (D,block_queries)
  T* scores = qt + ptrdiff_t{D} * block_queries;      // (N,block_queries): keys by queries
  T* column = scores + ptrdiff_t{N} * block_queries;  // (N)
  for (int i0 = 0; i0 < N; i0 += block_queries) {
    const int queries = std::min(block_queries, N - i0);
    transpose(queries, D, head.q + i0 * head.stride, head.stride, qt, block_queries);
    const int padded = round_up_to_lanes<T>(queries);
    gemm(N, padded, D, row_major(head.k, head.stride), qt, block_queries, scores, block_queries,
         GemmStart::zero);
    if (smallest)
      for (ptrdiff_t j = 0; j < ptrdiff_t{N} * block_queries; ++j) scores[j] = -scores[j];
    for (int i = 0; i < queries; i += lanes<T>) {
      const int rows = std::min(lanes<T>, queries - i);
      int* kept = keys + ptrdiff_t{i0 + i} * k;
      choose_block(scores + i, N, k, rows, kept, s + ptrdiff_t{i0 + i} * k, column, order);
    }
  }
  if (smallest)
    for (ptrdiff_t e = 0; e < ptrdiff_t{N} * k; ++e) s[e] = -s[e];
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
  //@ begin 04 sparse-forward
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
    //@ begin 04 sparse-backward
    for (int e = 0; e < count; ++e) {
      const ptrdiff_t key = keys[first + e] * stride;
      const T kept = !keep ? T(1) : keep[first + e] ? keep_scale : T(0);
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
