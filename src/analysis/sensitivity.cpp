#include "analysis/sensitivity.h"

#include <algorithm>
#include <cmath>

#include "tensor/softmax.h"

namespace focus {

namespace {

// e^δ / (n - 1 + e^δ): the weight of one score that lies δ above n - 1 equal ones, which is the
// largest weight there can be. Written with e^-δ, which never overflows.
double largest_weight(int n, double dispersion) {
  return 1 / (1 + (n - 1) * std::exp(-dispersion));
}

}  // namespace

double dispersion(std::span<const double> scores) {
  const auto [low, high] = std::minmax_element(scores.begin(), scores.end());
  return *high - *low;
}

double softmax_sensitivity(std::span<const double> scores) {
  std::vector<double> p(scores.size());
  softmax_row(p.data(), scores.data(), int(p.size()), 1.0);
  double largest = 0;
  for (double pj : p) largest = std::max(largest, 2 * pj * (1 - pj));
  return largest;
}

double softmax_entropy(std::span<const double> scores) {
  std::vector<double> p(scores.size());
  softmax_row(p.data(), scores.data(), int(p.size()), 1.0);
  double entropy = 0;
  //@ gap 17 entropy
  for (double pj : p) {
    if (pj == 0) continue;  // p ln p goes to 0 with p
    entropy -= pj * std::log(pj);
  }
  //@ end
  return entropy;
}

double sensitivity_bound(int n, double dispersion) {
  return std::min(0.5, 2 * largest_weight(n, dispersion));
}

double largest_sensitivity(int n, double dispersion) {
  const double p = std::min(0.5, largest_weight(n, dispersion));
  return 2 * p * (1 - p);
}

std::vector<double> most_sensitive_scores(int n, double dispersion) {
  std::vector<double> s(size_t(n), 0.0);
  s[0] = dispersion;
  // The others' exponentials must sum to the first one's: 1 + (n - 2) e^x = e^δ.
  if (largest_weight(n, dispersion) > 0.5)
    std::fill(s.begin() + 2, s.end(), std::log((std::exp(dispersion) - 1) / (n - 2)));
  return s;
}

}  // namespace focus
