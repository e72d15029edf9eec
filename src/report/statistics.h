// Summaries of several seeds: the median and the quartile band of a curve, and how many epochs a
// run needed.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace focus {

// Of nothing, and whenever a value is NaN, these are NaN. Infinities are values like any other.
double mean(const std::vector<double>& values);

// The q-quantile, 0 ≤ q ≤ 1: with the n values sorted as v[0] … v[n-1], the value at position
// q (n - 1), linear between neighbours (numpy's default). With +inf among the values a quantile
// that touches one is +inf.
double quantile(std::vector<double> values, double q);

double median(std::vector<double> values);

// The first epoch, counted from 1, at which the curve reaches the target from below (an accuracy)
// or from above (a loss). None if it never does.
std::optional<int> epochs_to(const std::vector<double>& curve, double target);
std::optional<int> epochs_down_to(const std::vector<double>& curve, double target);

// A run that never reached the target needed more epochs than any that did: it counts as +inf, so
// the median over seeds is honest as long as more than half of them arrived.
double median_epochs(const std::vector<std::optional<int>>& epochs);

// "5", "5.5", and "none" for +inf.
std::string epochs_text(double epochs);
std::string epochs_text(const std::optional<int>& epochs);

// Over several curves, epoch by epoch, as far as the shortest goes.
struct Band {
  std::vector<double> low, middle, high;  // the quartiles
};
Band quartile_band(const std::vector<std::vector<double>>& curves);

}  // namespace focus
