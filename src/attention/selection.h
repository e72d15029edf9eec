// Choosing the k keys with the largest scores.
//
// The tie rule, on every device: of equal scores the lower index wins. A NaN has no place in an
// order: it is reported, and the caller makes the whole row NaN.
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
  //@ begin 05 select-largest points=8
  //@ plan 1. valid: is no score NaN? (Only a NaN differs from itself.)
  //@ plan 2. order = 0, 1, ..., n-1. If valid, rearrange it so that the k keys that come first by
  //@ plan    (score falling, of equal scores index rising) stand in order[0 ... k-1].
  //@ plan 3. Copy those k into keys and sort them by index. Return valid.
  //@ hint 1 Two keys have the same score and one place is left. Which of them does the tie rule
  //@ hint 1 keep, and what must the comparison of two keys say about them?
  //@ hint 2 README, "The choice, one query", and "Ties". std::nth_element(first, nth, last, less)
  //@ hint 2 puts what belongs in front of nth there without sorting all; std::partial_sort will do
  //@ hint 2 as well.
  //@ hint 3 order = 0, 1, ..., n-1
  //@ hint 3 valid = no score among the n is NaN
  //@ hint 3 if valid and k < n:          (a NaN would break the order that nth_element relies on)
  //@ hint 3   let a come before b if s[a] > s[b], or if s[a] equals s[b] and a < b
  //@ hint 3   nth_element of order[0 ... n-1] at place k-1, with this "comes before"
  //@ hint 3 copy order[0 ... k-1] to keys, sort keys by number
  //@ hint 3 return valid
  //@ notice Rows of random scores hardly ever tie: with the wrong rule they come out right. The
  //@ notice tests make rows of few different values for this reason.
  std::iota(order, order + n, 0);
  //@ mutant select-ignores-nan: a NaN is compared like a number
  //~ const bool valid = true;
  const bool valid = std::none_of(s, s + n, [](T x) { return x != x; });
  if (valid && k < n)
    std::nth_element(order, order + (k - 1), order + n,
                     //@ mutant select-ties-high: of equal scores the higher index wins
                     //~ [&](int a, int b) { return s[a] > s[b] || (s[a] == s[b] && a > b); });
                     //@ mutant select-smallest: the k smallest
                     //~ [&](int a, int b) { return s[a] < s[b] || (s[a] == s[b] && a < b); });
                     [&](int a, int b) { return s[a] > s[b] || (s[a] == s[b] && a < b); });
  std::copy(order, order + k, keys);
  //@ mutant select-unsorted: the keys in whatever order the selection left them
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
  // their scores. What falls out at the end is returned.
  const auto enter = [&](int j, int entries, Vec<T>& score, Index& key) {
    score = load(s + j * stride);
    key = Index{} + Integer(j);
    has_nan |= score != score;
    Index found{};
    //@ begin 05 enter-list points=6
    //@ plan `score` and `key` hold what is on its way down: at first key j and its score.
    //@ plan For each entry l from 0 (the largest) up to entries - 1:
    //@ plan 1. Set `found` in the lanes where score > best[l]; a lane once set stays set.
    //@ plan 2. In the lanes of `found` exchange (score, key) with (best[l], keys[l]). For vectors,
    //@ plan    `found ? a : b` takes a in the lanes where found is set and b in the others.
    //@ hint 1 The list 2 2 gets a 5. The 5 takes the first place; where does the 2 that it pushed
    //@ hint 1 out go, though it is not larger than the second 2? And which 2 should fall out?
    //@ hint 2 README, "The choice, 16 queries side by side": the two lines of pseudocode, and why
    //@ hint 2 `|=`.
    //@ hint 3 for l from 0 to entries - 1:
    //@ hint 3   found = found or (score > best[l])        lane by lane; strictly larger
    //@ hint 3   keep best[l] and keys[l] in two variables
    //@ hint 3   best[l] = where found: score, elsewhere what best[l] was
    //@ hint 3   keys[l] = where found: key, elsewhere what keys[l] was
    //@ hint 3   score = where found: what best[l] was, elsewhere score
    //@ hint 3   key = where found: what keys[l] was, elsewhere key
    //@ notice A score and its key always move together, and nothing depends on the data but
    //@ notice numbers: a processor has no branch to mispredict.
    for (int l = 0; l < entries; ++l) {
      //@ mutant lanes-ties-high: of equal scores the later key goes in front
      //~ found |= score >= best[l];
      //@ mutant lanes-found-not-carried: later entries move only where they are larger again
      //~ found = score > best[l];
      found |= score > best[l];
      const Vec<T> old_best = best[l];
      const Index old_key = keys[l];
      best[l] = found ? score : old_best;
      keys[l] = found ? key : old_key;
      score = found ? old_best : score;
      //@ mutant lanes-key-lost: the entry's score moves down without its key
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

// The same with the widths of the paper's experiments known to the compiler.
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
