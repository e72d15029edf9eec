#include "analysis/convex_toy.h"

#include <algorithm>
#include <cmath>

#include "rng.h"

namespace focus {

namespace {

using Point = ConvexToy::Point;

double product(const Point& a, const Point& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
double length(const Point& a) {
  return std::sqrt(product(a, a));
}
double distance(Point a, const Point& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] -= b[i];
  return length(a);
}
void clip_to(Point& gradient, double clip) {
  const double norm = length(gradient);
  if (clip > 0 && norm > clip)
    for (double& g : gradient) g *= clip / norm;
}
// 1/(1 + e^s)
double falling(double s) {
  return s > 0 ? std::exp(-s) / (1 + std::exp(-s)) : 1 / (1 + std::exp(s));
}

// The solution of A x = b, A symmetric and positive definite; elimination.
Point solve(std::vector<Point> A, Point b) {
  const size_t n = b.size();
  for (size_t c = 0; c < n; ++c)
    for (size_t r = c + 1; r < n; ++r) {
      const double factor = A[r][c] / A[c][c];
      for (size_t i = c; i < n; ++i) A[r][i] -= factor * A[c][i];
      b[r] -= factor * b[c];
    }
  for (size_t r = n; r-- > 0;) {
    for (size_t i = r + 1; i < n; ++i) b[r] -= A[r][i] * b[i];
    b[r] /= A[r][r];
  }
  return b;
}

}  // namespace

ConvexToy::ConvexToy(int rows, int width, double lambda, uint64_t seed) : lambda_(lambda) {
  for (int row = 0; row < rows; ++row) {
    Rng rng(seed, Stream::analysis, 1, uint32_t(row));
    Point& x = x_.emplace_back(size_t(width));
    for (double& number : x) number = rng.normal();
    const double norm = length(x);
    for (double& number : x) number *= lambda / norm;
    const bool wrong = rng.uniform() < 0.2;
    labels_.push_back((x[0] > 0) != wrong ? 1 : -1);
  }

  minimum_.assign(size_t(width), 0.0);
  for (int round = 0; round < 50; ++round) {
    Point slope(minimum_.size(), 0.0);
    std::vector<Point> curvature(minimum_.size(), Point(minimum_.size(), 0.0));
    for (size_t r = 0; r < x_.size(); ++r) {
      const Point g = gradient(minimum_, x_[r], labels_[r]);
      const double p = falling(labels_[r] * product(x_[r], minimum_));
      for (size_t i = 0; i < g.size(); ++i) {
        slope[i] += g[i];
        for (size_t j = 0; j < g.size(); ++j) curvature[i][j] += p * (1 - p) * x_[r][i] * x_[r][j];
      }
    }
    const Point step = solve(curvature, slope);
    for (size_t i = 0; i < step.size(); ++i) minimum_[i] -= step[i];
    if (length(step) < 1e-12) break;
  }
}

double ConvexToy::loss(const Point& w) const {
  double sum = 0;
  for (size_t r = 0; r < x_.size(); ++r) {
    const double s = labels_[r] * product(x_[r], w);
    sum += std::max(-s, 0.0) + std::log1p(std::exp(-std::abs(s)));
  }
  return sum / double(x_.size());
}

Point ConvexToy::gradient(const Point& w, const Point& x, double label) const {
  const double factor = -label * falling(label * product(x, w));
  Point g = x;
  for (double& number : g) number *= factor;
  return g;
}

ConvexToy::Path ConvexToy::descend(int steps, double rate, double clip, uint64_t seed,
                                   bool other) const {
  Point w(minimum_.size(), 0.0), mean = w;
  Rng rng(seed, Stream::analysis, 3, 0);
  for (int step = 0; step < steps; ++step) {
    for (size_t i = 0; i < w.size(); ++i) mean[i] += w[i] / steps;
    const size_t row = rng.below(uint32_t(x_.size()));
    const double label = other && row == 0 ? -labels_[0] : labels_[row];
    Point g = gradient(w, x_[row], label);
    clip_to(g, clip);
    for (size_t i = 0; i < w.size(); ++i) w[i] -= rate * g[i];
  }
  return {w, mean};
}

Bounded convergence_of(const ConvexToy& toy, int steps, int runs) {
  const double R = length(toy.minimum()), root = std::sqrt(double(steps));
  double gap = 0;
  for (int run = 0; run < runs; ++run)
    gap += toy.loss(toy.descend(steps, R / (toy.lambda() * root), 0, uint64_t(run)).mean) -
           toy.loss(toy.minimum());
  return {gap / runs, R * toy.lambda() / root};
}

Bounded stability_of(const ConvexToy& toy, int steps, double rate, double clip, int runs) {
  double apart = 0;
  for (int run = 0; run < runs; ++run)
    apart += distance(toy.descend(steps, rate, clip, uint64_t(run)).last,
                      toy.descend(steps, rate, clip, uint64_t(run), true).last);
  return {apart / runs, 2 * toy.lambda() * rate * steps / toy.rows()};
}

double expansion_of(double stiffness, double rate, double clip, int pairs) {
  const auto step = [&](const Point& w) {
    Point g{w[0], stiffness * w[1]};
    clip_to(g, clip);
    return Point{w[0] - rate * g[0], w[1] - rate * g[1]};
  };
  double largest = 0;
  for (int pair = 0; pair < pairs; ++pair) {
    Rng rng(1, Stream::analysis, 4, uint32_t(pair));
    const Point a{rng.normal(), rng.normal()};
    const Point b{a[0] + 0.01 * rng.normal(), a[1] + 0.01 * rng.normal()};
    largest = std::max(largest, distance(step(a), step(b)) / distance(a, b));
  }
  return largest;
}

}  // namespace focus
