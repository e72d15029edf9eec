#include "analysis/spectral_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "rng.h"
#include "tensor/simd.h"

namespace focus {

namespace {

// The largest eigenvalue of the symmetric tridiagonal matrix with this diagonal and, beside it,
// `beside` (one number fewer). Bisection: x lies above every eigenvalue if and only if all pivots
// of T - x are negative.
double largest_eigenvalue(const std::vector<double>& diagonal, const std::vector<double>& beside) {
  const size_t n = diagonal.size();
  double low = diagonal[0], high = 0;  // Gershgorin's discs
  for (size_t i = 0; i < n; ++i) {
    const double radius =
        (i > 0 ? std::abs(beside[i - 1]) : 0) + (i + 1 < n ? std::abs(beside[i]) : 0);
    low = std::max(low, diagonal[i]), high = std::max(high, diagonal[i] + radius);
  }
  const auto above_all = [&](double x) {
    double pivot = 1;
    for (size_t i = 0; i < n; ++i) {
      pivot = diagonal[i] - x - (i > 0 ? beside[i - 1] * beside[i - 1] / pivot : 0);
      if (!(pivot < 0)) return false;
    }
    return true;
  };
  for (int step = 0; step < 100; ++step) {
    const double middle = (low + high) / 2;
    (above_all(middle) ? high : low) = middle;
  }
  return high;
}

}  // namespace

double spectral_norm(std::span<const double> a, int rows, int columns) {
  const size_t n = size_t(columns);
  double size = 0;  // dividing by it keeps squares from overflowing
  for (double x : a) size = std::max(size, std::abs(x));
  if (size == 0 || !std::isfinite(size)) return size;

  std::vector<std::vector<double>> basis;
  std::vector<double> next(n), image(static_cast<size_t>(rows)), diagonal, beside;
  Rng rng(1, Stream::analysis, 13);
  for (double& x : next) x = rng.normal();
  double length = std::sqrt(dot(next.data(), next.data(), columns)), eigenvalue = 0;
  for (int step = 0; step < columns; ++step) {
    for (double& x : next) x /= length;
    basis.push_back(next);
    for (int i = 0; i < rows; ++i)
      image[size_t(i)] = dot(a.data() + size_t(i) * n, next.data(), columns) / size;
    std::fill(next.begin(), next.end(), 0.0);
    for (int i = 0; i < rows; ++i)
      add_scaled(next.data(), a.data() + size_t(i) * n, image[size_t(i)] / size, columns);
    diagonal.push_back(dot(basis.back().data(), next.data(), columns));
    // Twice: what rounding leaves of the first time is gone after the second.
    for (int pass = 0; pass < 2; ++pass)
      for (const std::vector<double>& b : basis)
        add_scaled(next.data(), b.data(), -dot(b.data(), next.data(), columns), columns);
    const double before = eigenvalue;
    eigenvalue = largest_eigenvalue(diagonal, beside);
    length = std::sqrt(dot(next.data(), next.data(), columns));
    // Settled, after enough steps that a plateau is not mistaken for it; or the space is exhausted.
    if ((step >= 60 && eigenvalue - before <= 1e-15 * eigenvalue) || length <= 1e-14 * eigenvalue)
      break;
    beside.push_back(length);
  }
  return size * std::sqrt(std::max(0.0, eigenvalue));
}

}  // namespace focus
