// One query's scores through three attention mechanisms: which keys are kept, and their weights.
// Plain and in double; lessons 04 and 05 build the ones that train.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "analysis/largest.h"
#include "tensor/softmax.h"

namespace focus {

using Row = std::vector<double>;
using Keys = std::vector<int>;
enum Mechanism { full, banded, topk };

// The kept keys, ascending. banded: k neighbours, the place in the row given by `query`; topk: the
// k largest scores, of equal ones the lower key.
inline Keys kept_keys(Mechanism mechanism, const Row& s, int k, int query) {
  if (mechanism == topk) return largest_keys(s, k);
  Keys keys(mechanism == full ? s.size() : size_t(k));
  std::iota(keys.begin(), keys.end(), mechanism == full ? 0 : query % (int(s.size()) - k + 1));
  return keys;
}

inline Row kept_scores(const Row& s, const Keys& keys) {
  Row kept;
  for (int key : keys) kept.push_back(s[size_t(key)]);
  return kept;
}

// The attention weights of all keys: the softmax over the kept ones, 0 for the others.
inline Row attend(const Row& s, const Keys& keys) {
  Row p = kept_scores(s, keys), weights(s.size(), 0.0);
  softmax_row(p.data(), p.data(), int(p.size()), 1.0);
  for (size_t e = 0; e < keys.size(); ++e) weights[size_t(keys[e])] = p[e];
  return weights;
}

// ‖a - b‖₁.
inline double distance(const Row& a, const Row& b) {
  double sum = 0;
  for (size_t j = 0; j < a.size(); ++j) sum += std::abs(a[j] - b[j]);
  return sum;
}

}  // namespace focus
