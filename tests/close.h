// Numbers to test with, and comparisons that say where two tensors differ.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "digits.h"
#include "error.h"
#include "rng.h"
#include "tensor/tensor.h"

namespace focus::test {

// Distinct numbers in [-1, 1), a different sequence for each `which`.
inline std::vector<double> random_numbers(size_t n, uint32_t which) {
  Rng rng(2718, Stream::analysis, which);
  std::vector<double> x(n);
  for (double& value : x) value = 2 * rng.uniform() - 1;
  return x;
}

// Quarters in -1 … 1. Sums of their products are exact in float too, whatever the order, so scores
// made of them are the same everywhere, and rows of them are full of ties.
inline std::vector<double> quarters(size_t n, uint32_t which) {
  Rng rng(3141, Stream::analysis, which);
  std::vector<double> x(n);
  for (double& value : x) value = rng.between(-4, 4) / 4.0;
  return x;
}

// The numbers as T, which is what the code under test gets.
template <class T>
std::vector<T> as(const std::vector<double>& x) {
  return std::vector<T>(x.begin(), x.end());
}

// What double references should start from: the numbers after rounding to T.
template <class T>
std::vector<double> rounded(const std::vector<double>& x) {
  const std::vector<T> r = as<T>(x);
  return std::vector<double>(r.begin(), r.end());
}

inline std::string coordinates(const Shape& shape, size_t index) {
  std::string text;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    text = std::to_string(index % size_t(shape[i])) + (text.empty() ? "" : ", ") + text;
    index /= size_t(shape[i]);
  }
  return "[" + text + "]";
}

// Empty if every got[i] is within `units` · ε(T) · max(1, largest |wanted|) of wanted[i]; otherwise
// the worst element with its coordinates. ε is the spacing of numbers near 1, so `units` counts
// rounding errors. Where NaN or an infinity is wanted, exactly that must come.
template <class T>
std::string difference(const std::string& what, const Shape& shape, const T* got,
                       const std::vector<double>& wanted, double units) {
  if (wanted.size() != shape.size())
    return str(what, ": the reference has ", wanted.size(), " numbers for shape ", shape.text());
  double scale = 1;
  for (double w : wanted)
    if (std::isfinite(w)) scale = std::max(scale, std::abs(w));
  const double limit = units * double(std::numeric_limits<T>::epsilon()) * scale;
  size_t worst = 0;
  double worst_error = -1;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double g = double(got[i]), w = wanted[i];
    if (g == w || (std::isnan(g) && std::isnan(w))) continue;
    double error = std::abs(g - w);
    if (!(error <= limit)) error = std::isfinite(error) ? error : HUGE_VAL;  // NaN is never close
    if (error > worst_error) worst_error = error, worst = i;
  }
  if (worst_error <= limit) return "";
  return str(what, " ", coordinates(shape, worst), ": ",
             got_wanted(double(got[worst]), wanted[worst]), " (err ", worst_error, ", limit ",
             limit, ")");
}

// Empty if both rows of numbers have the same bits, else the first that differs.
template <class T>
std::string other_bits(const std::vector<T>& got, const std::vector<T>& wanted) {
  if (got.size() != wanted.size())
    return str("got ", got.size(), " numbers, wanted ", wanted.size());
  for (size_t i = 0; i < got.size(); ++i)
    if (std::memcmp(&got[i], &wanted[i], sizeof(T)) != 0)
      return str("number ", i, ": ", got_wanted(double(got[i]), double(wanted[i])));
  return "";
}

template <class T>
std::string difference(const std::string& what, const Tensor<T>& got,
                       const std::vector<double>& wanted, double units) {
  return difference(what, got.shape, got.data, wanted, units);
}

// Sets everything to NaN, so that what is not written shows.
template <class Container>
void poison(Container& numbers) {
  for (auto& x : numbers) x = std::numeric_limits<std::decay_t<decltype(x)>>::quiet_NaN();
}

}  // namespace focus::test
