#include "analysis/conditions.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace focus {

double weights_left_side(double delta_s, double delta_h, double separation) {
  //@ gap 14 weights-condition
  const double constant = std::log(2 * (1 + 1 / separation));
  const double top = delta_h + constant;
  return top / delta_s;
  //@ end
}

double inputs_left_side(double delta_s, double delta_h, double separation, double beta_h) {
  const double kept = std::log(delta_s * (1 + beta_h) * (1 + 1 / separation) + beta_h);
  return (delta_h + kept - std::log(delta_s + 1)) / delta_s;
}

bool weights_hold_capped(double delta_s, double delta_h, double separation, int T) {
  return 2 * std::exp(delta_h) * (1 + 1 / separation) < std::min(std::exp(delta_s), T / 2.0);
}

std::vector<Condition> table_6(const Statistics& full, const Statistics& sparse, int k) {
  if (!sparse.separation)
    fail_input("the conditions need a separation, and where no key is dropped there is none");
  const auto at = [](const Percentiles& all, int point) {
    return std::max(percentile(all, point), 1e-9);
  };
  std::vector<Condition> rows;
  for (int p : {75, 90, 95, 100}) {
    Condition c{p,
                at(full.dispersion, p),
                at(*sparse.kept_dispersion, p),
                at(*sparse.separation, 100 - p),
                at(*sparse.key_count, p),
                0,
                0};
    c.weights = weights_left_side(c.delta_s, c.delta_h, c.separation);
    c.inputs = inputs_left_side(c.delta_s, c.delta_h, c.separation, c.beta / k);
    rows.push_back(c);
  }
  return rows;
}

double weights_frontier(double delta_s, double c1) {
  double surplus = 0;
  //@ gap 14 weights-frontier
  // 1 + 1/(δ_s c₂) < e^{δ_s (1 − c₁)} / 2
  const double growth = std::exp(delta_s * (1 - c1));
  surplus = growth / 2 - 1;
  //@ end
  return surplus > 0 ? 1 / (delta_s * surplus) : std::numeric_limits<double>::infinity();
}

double inputs_frontier(double delta_s, double c1, double beta_h) {
  // δ_s (1 + 1/(δ_s c₂)) (1 + β_h) < e^{δ_s (1 − c₁)} (δ_s + 1) − β_h
  const double surplus =
      (std::exp(delta_s * (1 - c1)) * (delta_s + 1) - beta_h) / (1 + beta_h) - delta_s;
  return surplus > 0 ? 1 / surplus : std::numeric_limits<double>::infinity();
}

}  // namespace focus
