// The k largest scores of a row, for measurements: one threshold, no sorting. The lessons before 05
// measure top-k with this; the version that trains is in attention/selection.h.
#pragma once

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

namespace focus {

// The keys of the k largest scores, ascending; of equal scores the lower key is kept.
// 1 ≤ k ≤ row.size(), no NaN.
inline std::vector<int> largest_keys(std::span<const double> row, int k) {
  std::vector<double> falling(row.begin(), row.end());
  std::nth_element(falling.begin(), falling.begin() + (k - 1), falling.end(), std::greater<>());
  const double threshold = falling[size_t(k - 1)];
  // Scores above the threshold are kept; ties fill the rest, lowest index first.
  auto equal_ones =
      k - std::count_if(row.begin(), row.end(), [&](double s) { return s > threshold; });
  std::vector<int> keys;
  for (size_t j = 0; j < row.size(); ++j)
    if (row[j] > threshold || (row[j] == threshold && equal_ones-- > 0)) keys.push_back(int(j));
  return keys;
}

}  // namespace focus
