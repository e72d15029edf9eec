#include "analysis/bounds.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "analysis/sensitivity.h"

namespace focus {

double largest_movement(double epsilon) {
  return 2 * std::tanh(epsilon / 2);
}

JumpBounds jump_bounds(int k, double kept_dispersion) {
  // The lowest kept weight, once with all others at the top and once with all but one beside it.
  JumpBounds jump{};
  //@ gap 14 jump
  const double top = std::exp(kept_dispersion);
  jump.low = 2 / (1 + (k - 1) * top);
  jump.high = 2 / (k - 1 + top);
  //@ end
  return jump;
}

double largest_topk_movement(std::span<const double> scores, int k, double epsilon) {
  std::vector<double> s(scores.begin(), scores.end());
  std::sort(s.begin(), s.end(), std::greater<>());
  const int n = int(s.size());
  const auto at = [&](int rank) { return s[size_t(rank)]; };
  const double dispersion = at(0) - at(k - 1), separation = at(k - 1) - at(k);
  double entering = 0;  // the weight that keys from below can have, at most
  //@ gap 14 topk-movement
  const double past = 2 * epsilon - separation;  // how far the two can pass each other
  if (past >= 0) {
    int m = 1;  // how many can be exchanged
    while (m < std::min(k, n - k) && at(k - m - 1) - at(k + m) <= 2 * epsilon) ++m;
    const double stay = std::exp(-past);
    // The largest kept score, where it stays above all that enter, weighs e^{δ_h} of the lowest.
    entering = past < dispersion && m < k
                   ? m / (m + (k - 1 - m) * stay + std::exp(dispersion - past))
                   : m / (m + (k - m) * stay);
  }
  //@ end
  return std::min(2.0, largest_movement(epsilon) + 2 * entering);
}

double topk_sensitivity_bound(int k, double kept_dispersion, double separation,
                              double other_separation) {
  const double top = std::exp(kept_dispersion);
  return largest_sensitivity(k, kept_dispersion) +
         2 / (separation + other_separation) * top / (k - 1 + top);
}

double papers_topk_bound(int k, double kept_dispersion, double separation) {
  return 2 * std::exp(kept_dispersion) * (1 + 1 / separation) / k;
}

double layer_bound_largest(const LayerNorms& n) {
  return n.Upsilon * (1 + 2 * n.Gamma * n.Xi * n.Xi);
}

double layer_bound_sum(const LayerNorms& n, double c) {
  return n.Upsilon * (c + n.Gamma * n.Xi * n.Xi * (1 + 2 * c));
}

double papers_layer_bound(const LayerNorms& n, double dispersion) {
  return n.Upsilon * std::exp(dispersion) * (1 + 2 * n.Gamma * n.Xi * n.Xi);
}

}  // namespace focus
