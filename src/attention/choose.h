// Where the lists of sparse attention come from if positions do not decide: by score, for top-k and
// bottom-k, and by random numbers.
#pragma once

#include <limits>

#include "attention/selection.h"
#include "attention/sparse.h"
#include "rng.h"

namespace focus::sparse {

inline constexpr int block_queries = 64;  // queries whose scores are computed together
static_assert(block_queries % lanes<float> == 0 && block_queries % lanes<double> == 0);

// Scratch of one thread for choose_by_score: `numbers` of T, `ints`.
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
  //@ begin 05 choose-block points=6
  //@ plan For each of the `rows` queries i (a lane of `lists`, a column of `scores`):
  //@ plan 1. keys + i * k gets its k keys, ascending. If `fast` they are lists.key[0 ... k-1][i],
  //@ plan    from the best down; else copy column i to `column` and call select_largest.
  //@ plan 2. s + i * k gets the scores at those keys, in the same order; NaN if the query has a
  //@ plan    NaN score. Query i's score of key j is scores[j * block_queries + i].
  //@ hint 1 The lists are in the order of the scores, the kept keys must be in the order of the
  //@ hint 1 tokens. After the keys have been sorted, which array still says which score belongs to
  //@ hint 1 which key?
  //@ hint 2 What comes out is said above choose_by_score; why NaN must show: the head of
  //@ hint 2 selection.h. `has_nan[i]` is not 0 for a query with a NaN; select_largest returns
  //@ hint 2 false for one.
  //@ hint 3 for i from 0 to rows - 1:
  //@ hint 3   kept = keys + i * k
  //@ hint 3   if fast:
  //@ hint 3     for l from 0 to k - 1: kept[l] = lists.key[l][i], as an int
  //@ hint 3     sort the k numbers at kept
  //@ hint 3     valid = lists.has_nan[i] is 0
  //@ hint 3   else:
  //@ hint 3     for j from 0 to N - 1: column[j] = scores[j * block_queries + i]
  //@ hint 3     valid = select_largest(column, N, k, kept, order)
  //@ hint 3   for e from 0 to k - 1:
  //@ hint 3     s[i * k + e] = scores[kept[e] * block_queries + i] if valid, else NaN
  //@ notice From here on nobody asks how the keys were chosen: forward and backward are lesson
  //@ notice 04's. That is what "no gradient through the choice" looks like in code.
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
      //@ mutant column-of-first-query: every query is given the first one's keys
      //~ for (ptrdiff_t j = 0; j < N; ++j) column[j] = scores[j * block_queries];
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

// keys: (T,k) out, k random keys of every query, ascending; s: (T,k) out, their scores, unscaled. A
// pure function of the noise, the unit (head and sequence) and the place.
template <class T>
void choose_at_random(const Head<T>& head, const Noise& noise, uint32_t site, int unit, int k,
                      const int* begin, int* keys, T* s) {
  // Evaluation has no step of its own: it always draws the same keys.
  const uint32_t step = noise.on ? noise.step : ~0u;
  for (int i = 0; i < head.length; ++i) {
    Rng rng(
        noise.seed + (uint64_t(unit) * uint64_t(head.length) + uint64_t(i)) * 0x9E3779B97F4A7C15u,
        Stream::attention, step, site);
    int* row = keys + ptrdiff_t{i} * k;
    for (int e = 0; e < k; ++e) row[e] = int(rng.below(uint32_t(head.length)));
    std::sort(row, row + k);
  }
  score_listed_keys(head, begin, keys, s);
  // A key that was drawn twice counts once: its second entry gets score -inf, hence weight 0.
  for (int i = 0; i < head.length; ++i)
    for (int e = i * k + 1; e < (i + 1) * k; ++e)
      if (keys[e] == keys[e - 1]) s[e] = -std::numeric_limits<T>::infinity();
}

}  // namespace focus::sparse
