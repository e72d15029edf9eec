#include "report/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>
#include <utility>

namespace focus {

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / double(values.size());
}

double quantile(std::vector<double> values, double q) {
  const auto is_nan = [](double value) { return std::isnan(value); };
  if (values.empty() || std::any_of(values.begin(), values.end(), is_nan)) return std::nan("");
  std::sort(values.begin(), values.end());
  const double position = std::clamp(q, 0.0, 1.0) * double(values.size() - 1);
  const size_t below = size_t(position);
  const double share = position - double(below), lo = values[below];
  // Equal neighbours stay exact, and 0 × inf stays out of the sum.
  if (share == 0 || lo == values[below + 1]) return lo;
  return (1 - share) * lo + share * values[below + 1];
}

double median(std::vector<double> values) {
  return quantile(std::move(values), 0.5);
}

std::optional<int> epochs_to(const std::vector<double>& curve, double target) {
  for (size_t i = 0; i < curve.size(); ++i) {
    if (curve[i] >= target) return int(i) + 1;
  }
  return std::nullopt;
}

std::optional<int> epochs_down_to(const std::vector<double>& curve, double target) {
  for (size_t i = 0; i < curve.size(); ++i) {
    if (curve[i] <= target) return int(i) + 1;
  }
  return std::nullopt;
}

double median_epochs(const std::vector<std::optional<int>>& epochs) {
  std::vector<double> values;
  for (const std::optional<int>& e : epochs) {
    values.push_back(e ? *e : std::numeric_limits<double>::infinity());
  }
  return median(std::move(values));
}

std::string epochs_text(double epochs) {
  if (std::isinf(epochs)) return "none";
  char text[40];
  std::snprintf(text, sizeof text, "%g", epochs);
  return text;
}

std::string epochs_text(const std::optional<int>& epochs) {
  return epochs ? std::to_string(*epochs) : "none";
}

Band quartile_band(const std::vector<std::vector<double>>& curves) {
  size_t length = curves.empty() ? 0 : curves[0].size();
  for (const auto& curve : curves) length = std::min(length, curve.size());
  Band band;
  for (size_t epoch = 0; epoch < length; ++epoch) {
    std::vector<double> values;
    for (const auto& curve : curves) values.push_back(curve[epoch]);
    band.low.push_back(quantile(values, 0.25));
    band.middle.push_back(quantile(values, 0.5));
    band.high.push_back(quantile(std::move(values), 0.75));
  }
  return band;
}

}  // namespace focus
