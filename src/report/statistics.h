// Summaries of several seeds: the median and the quartile band of a curve, and how many epochs a
// run needed.
#pragma once

#include <functional>
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
// the median over seeds is exact as long as more than half of them reached it.
double median_epochs(const std::vector<std::optional<int>>& epochs);

// "5", "5.5", and "none" for +inf.
std::string epochs_text(double epochs);
std::string epochs_text(const std::optional<int>& epochs);

// Over several curves, epoch by epoch, as far as the shortest goes.
struct Band {
  std::vector<double> low, middle, high;  // the quartiles
};
Band quartile_band(const std::vector<std::vector<double>>& curves);

// A value computed from pairs of seeds, and an interval that would hold 95 % of such values if the
// experiment were repeated with other seeds. Three seeds or fewer are too few for that: the
// interval is the range of the pairs, and is called so. NaN where it is unknown.
struct Estimate {
  double value = 0, low = 0, high = 0;
};

// Its interval in words, with two decimals: "1.89 to 4.20"; where an end is not finite "1.89 or
// more", "4.20 or less", "unknown".
std::string interval_text(const Estimate& estimate);
// What the interval of n pairs is called: "range" or "95 % interval".
const char* interval_name(size_t n);

// The percentile bootstrap (Efron 1979): `statistic` of n pairs drawn with replacement, 2000 times;
// the interval goes from the 2.5 % to the 97.5 % quantile. A draw that gives NaN (no run reached
// the target) could be anything: it counts as -inf for the lower end and as +inf for the upper one.
// `picked` holds n indices of pairs. The draws are the same for every call with this n.
Estimate bootstrap(size_t n,
                   const std::function<double(const std::vector<size_t>& picked)>& statistic);

// How many times fewer epochs: median of `baseline` / median of `epochs`, pair by pair of the same
// seed. A run that never reached the target needed +inf epochs; if neither median is finite, NaN.
Estimate speedup(const std::vector<double>& epochs, const std::vector<double>& baseline);

// The median of the differences value - baseline, pair by pair.
Estimate median_gain(const std::vector<double>& values, const std::vector<double>& baseline);

// Of pairs (a, b): how often a < b, a > b, and neither; and how probable so uneven a split, or one
// more uneven, would be if both were equally likely (two-sided, ties left out; 1 without pairs).
struct SignTest {
  int less = 0, greater = 0, ties = 0;
  double p = 1;
};
SignTest sign_test(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace focus
