#include "report/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>
#include <utility>

#include "rng.h"

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

const char* interval_name(size_t n) {
  return n <= 3 ? "range" : "95 % interval";
}

std::string interval_text(const Estimate& e) {
  char text[80];
  if (std::isfinite(e.low) && std::isfinite(e.high))
    std::snprintf(text, sizeof text, "%.2f to %.2f", e.low, e.high);
  else if (std::isfinite(e.low))
    std::snprintf(text, sizeof text, "%.2f or more", e.low);
  else if (std::isfinite(e.high))
    std::snprintf(text, sizeof text, "%.2f or less", e.high);
  else
    return "unknown";
  return text;
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

Estimate bootstrap(size_t n,
                   const std::function<double(const std::vector<size_t>& picked)>& statistic) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  if (n == 0) return {nan, nan, nan};
  constexpr uint32_t draws = 2000;
  std::vector<size_t> picked(n);
  std::iota(picked.begin(), picked.end(), size_t{0});
  Estimate estimate{statistic(picked), nan, nan};
  std::vector<double> low, high;
  for (uint32_t draw = 0; draw < draws; ++draw) {
    Rng rng(0, Stream::analysis, draw);
    for (size_t& index : picked) index = rng.below(uint32_t(n));
    const double value = statistic(picked);
    low.push_back(std::isnan(value) ? -inf : value);
    high.push_back(std::isnan(value) ? inf : value);
  }
  // A draw's own value, not one between two: there may be -inf beside +inf.
  std::sort(low.begin(), low.end());
  std::sort(high.begin(), high.end());
  estimate.low = low[draws / 40];
  estimate.high = high[draws - 1 - draws / 40];
  return estimate;
}

namespace {

std::vector<double> pick(const std::vector<double>& values, const std::vector<size_t>& picked) {
  std::vector<double> some;
  for (const size_t index : picked) some.push_back(values.at(index));
  return some;
}

}  // namespace

Estimate speedup(const std::vector<double>& epochs, const std::vector<double>& baseline) {
  Estimate estimate = bootstrap(epochs.size(), [&](const std::vector<size_t>& picked) {
    return median(pick(baseline, picked)) / median(pick(epochs, picked));  // inf / inf is NaN
  });
  estimate.low = std::max(estimate.low, 0.0);  // a ratio of epochs is not negative
  return estimate;
}

Estimate median_gain(const std::vector<double>& values, const std::vector<double>& baseline) {
  return bootstrap(values.size(), [&](const std::vector<size_t>& picked) {
    std::vector<double> gains;
    for (const size_t index : picked) gains.push_back(values.at(index) - baseline.at(index));
    return median(std::move(gains));
  });
}

SignTest sign_test(const std::vector<double>& a, const std::vector<double>& b) {
  SignTest test;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    test.less += a[i] < b[i];
    test.greater += a[i] > b[i];
    test.ties += !(a[i] < b[i]) && !(a[i] > b[i]);
  }
  // Twice the smaller tail of the binomial distribution with one half.
  const int n = test.less + test.greater;
  double term = std::pow(0.5, n), tail = 0;
  for (int i = 0; i <= std::min(test.less, test.greater); ++i) {
    tail += term;
    term *= double(n - i) / (i + 1);
  }
  test.p = std::min(1.0, 2 * tail);
  return test;
}

}  // namespace focus
