// The key lists that do not follow from positions: chosen by score for top-k and bottom-k, by
// random numbers for the random pattern.
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
  const size_t lists = size_t(lanes<T>) * size_t(length);  // of a causal mask's first queries
  return {size_t(block_queries) * size_t(width + length) + size_t(length) + lists,
          size_t(length) + lists};
}

// The queries from i0 on do not see later keys: these become worse than all others (of equal scores
// the lower index wins), so that they stand at the end of a list, where it has too few others.
template <class T>
void hide_later_keys(T* scores, int i0, int queries, int keys) {
  //@ gap 15 hide-later-keys
  for (int j = i0 + 1; j < keys; ++j)
    std::fill_n(scores + ptrdiff_t{j} * block_queries, std::min(j - i0, queries),
                -std::numeric_limits<T>::infinity());
  //@ end
}

// The lists of up to `lanes` queries, from their columns of scores.
template <class T>
void choose_block(const T* scores, int N, int k, int rows, int* keys, T* s, T* column, int* order) {
  FastLists<T> lists;
  const bool fast = k <= longest_fast_list;
  if (fast) select_largest_of_lanes(scores, block_queries, N, k, lists);
  //@ gap 05 choose-block
  for (int i = 0; i < rows; ++i) {
    int* kept = keys + ptrdiff_t{i} * k;
    bool valid;
    if (fast) {
      for (int l = 0; l < k; ++l) kept[l] = int(lists.key[l][i]);
      std::sort(kept, kept + k);
      valid = !lists.has_nan[i];
    } else {
      for (ptrdiff_t j = 0; j < N; ++j) column[j] = scores[j * block_queries + i];
      valid = select_largest(column, N, k, kept, order);
    }
    for (int e = 0; e < k; ++e)
      s[ptrdiff_t{i} * k + e] = valid ? scores[ptrdiff_t{kept[e]} * block_queries + i]
                                      : std::numeric_limits<T>::quiet_NaN();
  }
  //@ end
}

// keys: out, the k largest scores of each query (with `smallest` the k smallest), ascending; under
// a causal mask fewer for the first queries, as `begin` says. s: out, the scores at those keys,
// unscaled; NaN for a query that has a NaN score.
template <class T>
void choose_by_score(const Head<T>& head, const int* begin, int k, bool smallest, int* keys, T* s,
                     T* scratch, int* order) {
  const int N = head.length, D = head.width;
  T* qt = scratch;                                    // Qᵀ of a block, (D,block_queries)
  T* scores = qt + ptrdiff_t{D} * block_queries;      // (N,block_queries): keys by queries
  T* column = scores + ptrdiff_t{N} * block_queries;  // (N)
  T* all_s = column + N;                              // (lanes,k)
  int* all_keys = order + N;                          // likewise
  for (int i0 = 0; i0 < N; i0 += block_queries) {
    const int queries = std::min(block_queries, N - i0);
    transpose(queries, D, head.q + i0 * head.stride, head.stride, qt, block_queries);
    const int padded = round_up_to_lanes<T>(queries);
    const int seen = std::max(k, head.seen(i0 + queries - 1));  // a list has k places
    gemm(seen, padded, D, row_major(head.k, head.stride), qt, block_queries, scores, block_queries,
         GemmStart::zero);
    if (head.causal) hide_later_keys(scores, i0, queries, seen);
    if (smallest)
      for (ptrdiff_t j = 0; j < ptrdiff_t{N} * block_queries; ++j) scores[j] = -scores[j];
    for (int i = 0; i < queries; i += lanes<T>) {
      const int rows = std::min(lanes<T>, queries - i), *first = begin + i0 + i;
      if (first[rows] - first[0] == rows * k) {
        choose_block(scores + i, seen, k, rows, keys + first[0], s + first[0], column, order);
        continue;
      }
      choose_block(scores + i, seen, k, rows, all_keys, all_s, column, order);
      for (int r = 0; r < rows; ++r) {
        std::copy_n(all_keys + r * k, first[r + 1] - first[r], keys + first[r]);
        std::copy_n(all_s + r * k, first[r + 1] - first[r], s + first[r]);
      }
    }
  }
  if (smallest)
    for (ptrdiff_t e = 0; e < ptrdiff_t{N} * k; ++e) s[e] = -s[e];
}

// keys: (T,k) out, k random keys of every query, ascending; s: (T,k) out, their scores, unscaled. A
// pure function of the noise, the batch_head (head and sequence) and the place.
template <class T>
void choose_at_random(const Head<T>& head, const Noise& noise, uint32_t site, int batch_head, int k,
                      const int* begin, int* keys, T* s) {
  // Evaluation has no step of its own: it always draws the same keys.
  const uint32_t step = noise.on ? noise.step : ~0u;
  for (int i = 0; i < head.length; ++i) {
    Rng rng(noise.seed +
                (uint64_t(batch_head) * uint64_t(head.length) + uint64_t(i)) * 0x9E3779B97F4A7C15u,
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
