// Choosing the k keys with the largest scores.
//
// The tie rule, on every device: of equal scores the lower index wins. NaN cannot be ordered: it is
// reported, and the caller makes the whole row NaN.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <type_traits>

#include "tensor/simd.h"

namespace focus {

// The plain version, for any k: keys[0 … k-1] = the keys of the k largest of the n scores s,
// ascending. 1 ≤ k ≤ n; order is scratch for n ints. False if a score is NaN: then the keys are
// valid but arbitrary.
template <class T>
bool select_largest(const T* s, int n, int k, int* keys, int* order) {
  //@ gap 05 select-largest
  std::iota(order, order + n, 0);
  const bool valid = std::none_of(s, s + n, [](T x) { return x != x; });
  if (valid && k < n)
    std::nth_element(order, order + (k - 1), order + n,
                     [&](int a, int b) { return s[a] > s[b] || (s[a] == s[b] && a < b); });
  std::copy(order, order + k, keys);
  std::sort(keys, keys + k);
  return valid;
  //@ end
}

// The fast version, for short lists: one query in each lane of a vector, so that a list entry of 16
// queries (in float, with AVX-512) is one register, and a new key takes its place in all 16 lists
// by the same comparisons and selections, without a branch that a processor could mispredict.
inline constexpr int longest_fast_list = 32;

template <class T>
struct FastLists {
  using Index = decltype(Vec<T>{} > Vec<T>{});  // a vector of integers as wide as T
  Vec<T> best[longest_fast_list];               // scores, largest first
  Index key[longest_fast_list];
  Index has_nan;  // not 0 in the lanes of queries with a NaN score
};

// s: (n keys, lanes queries), rows `stride` apart → the k best of each lane. 1 ≤ k ≤ n,
// k ≤ longest_fast_list. With K = k known to the compiler the lists stay in registers.
template <int K, class T>
void select_largest_of_lanes(const T* s, ptrdiff_t stride, int n, int k, FastLists<T>& lists) {
  using Index = typename FastLists<T>::Index;
  using Integer = std::remove_cvref_t<decltype(Index{}[0])>;
  Vec<T> best[K > 0 ? K : longest_fast_list];
  Index keys[K > 0 ? K : longest_fast_list];
  Index has_nan{};

  // Key j enters lists of `entries` keys. Strictly larger: of equal scores the earlier key stays in
  // front. Where the key has found its place, it and every later entry move one down, whatever
  // their scores. The pair pushed out at the end is left in (score, key).
  const auto enter = [&](int j, int entries, Vec<T>& score, Index& key) {
    score = load(s + j * stride);
    key = Index{} + Integer(j);
    has_nan |= score != score;
    Index found{};
    //@ gap 05 enter-list
    for (int l = 0; l < entries; ++l) {
      found |= score > best[l];
      const Vec<T> old_best = best[l];
      const Index old_key = keys[l];
      best[l] = found ? score : old_best;
      keys[l] = found ? key : old_key;
      score = found ? old_best : score;
      key = found ? old_key : key;
    }
    //@ end
  };
  for (int j = 0; j < k; ++j) enter(j, j, best[j], keys[j]);
  Vec<T> fallen_score;
  Index fallen_key;
  for (int j = k; j < n; ++j) enter(j, K > 0 ? K : k, fallen_score, fallen_key);

  std::copy(best, best + k, lists.best);
  std::copy(keys, keys + k, lists.key);
  lists.has_nan = has_nan;
}

// The same, with the paper's values of k known to the compiler.
template <class T>
void select_largest_of_lanes(const T* s, ptrdiff_t stride, int n, int k, FastLists<T>& lists) {
  switch (k) {
    case 5:
      return select_largest_of_lanes<5>(s, stride, n, k, lists);
    case 9:
      return select_largest_of_lanes<9>(s, stride, n, k, lists);
    default:
      return select_largest_of_lanes<0>(s, stride, n, k, lists);
  }
}

}  // namespace focus
