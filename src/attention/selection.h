// Choosing the k keys with the largest scores.
//
// The tie rule, on every device: of equal scores the lower index wins.
#pragma once

#include <algorithm>
#include <numeric>

#include "tensor/simd.h"

namespace focus {

namespace selection_detail {

inline constexpr int chunk = 32;

// Whether any of `chunk` scores is above the threshold, or is NaN.
template <class T>
inline bool any_above(const T* s, T threshold) {
  int above = 0;
  for (int j = 0; j < chunk; ++j) above |= !(s[j] <= threshold);
  return above != 0;
}

// A short list of the best so far, best first. A new score moves left past every strictly smaller
// one, so among equals the earlier key stays in front. Most scores are below the list's last entry,
// the threshold, and are passed over a chunk at a time.
template <class T>
bool select_by_list(const T* s, int n, int k, int* keys, T* best) {
  bool has_nan = false;
  const auto insert = [&](int j, int count) {
    int at = count;
    for (; at > 0 && best[at - 1] < s[j]; --at) {
      best[at] = best[at - 1];
      keys[at] = keys[at - 1];
    }
    best[at] = s[j];
    keys[at] = j;
  };
  const auto look = [&](int j) {
    if (s[j] > best[k - 1])
      insert(j, k - 1);
    else
      has_nan |= s[j] != s[j];
  };
  for (int j = 0; j < k; ++j) {
    has_nan |= s[j] != s[j];
    insert(j, j);
  }
  int j = k;
  for (; j + chunk <= n; j += chunk)
    if (any_above(s + j, best[k - 1]))
      for (int i = j; i < j + chunk; ++i) look(i);
  for (; j < n; ++j) look(j);
  return !has_nan;
}

// For long lists: partial sorting of all keys.
template <class T>
bool select_by_partition(const T* s, int n, int k, int* keys, int* order) {
  for (int j = 0; j < n; ++j)
    if (s[j] != s[j]) {  // NaN has no place in an order: keep any keys
      std::iota(keys, keys + k, 0);
      return false;
    }
  std::iota(order, order + n, 0);
  std::nth_element(order, order + (k - 1), order + n,
                   [&](int a, int b) { return s[a] > s[b] || (s[a] == s[b] && a < b); });
  std::copy(order, order + k, keys);
  return true;
}

}  // namespace selection_detail

// Scratch of select_largest, in numbers of T and of int, for rows of n scores.
inline constexpr int longest_list = 32;

// keys[0 … k-1] = the keys of the k largest of the n scores s, ascending. 1 ≤ k ≤ n.
// best: scratch of longest_list numbers; order: scratch of n ints.
// False if a score is NaN: then the keys are valid but arbitrary, and the caller makes the row NaN.
template <class T>
bool select_largest(const T* s, int n, int k, int* keys, T* best, int* order) {
  using namespace selection_detail;
  if (k == n) {
    std::iota(keys, keys + n, 0);
    return true;
  }
  const bool valid = k <= longest_list ? select_by_list(s, n, k, keys, best)
                                       : select_by_partition(s, n, k, keys, order);
  std::sort(keys, keys + k);
  return valid;
}

}  // namespace focus
