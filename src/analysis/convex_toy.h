// A problem on which the theorems behind "a small Lipschitz constant helps SGD" hold: logistic
// regression with some labels wrong, so that it is convex and has a minimum.
//
//   f(w) = mean of ln(1 + e^{−y x·w}) over n rows x with labels y = ±1
//
// A row's loss is λ-Lipschitz with λ = max ‖x‖ and β-smooth with β = λ²/4.
#pragma once

#include <cstdint>
#include <vector>

namespace focus {

class ConvexToy {
 public:
  using Point = std::vector<double>;

  // Rows of normal numbers, each rescaled to the length `lambda`; one label in five is wrong.
  ConvexToy(int rows, int width, double lambda, uint64_t seed);

  double lambda() const { return lambda_; }
  double smoothness() const { return lambda_ * lambda_ / 4; }
  int rows() const { return int(labels_.size()); }
  double loss(const Point& w) const;
  const Point& minimum() const { return minimum_; }  // by Newton's method

  // SGD from 0, a random row each step; a gradient longer than `clip` is cut to that (0: none).
  // `other`: row 0 has the other label. `mean`: of the points before each step.
  struct Path {
    Point last, mean;
  };
  Path descend(int steps, double rate, double clip, uint64_t seed, bool other = false) const;

 private:
  Point gradient(const Point& w, const Point& x, double label) const;

  double lambda_;
  std::vector<Point> x_;
  std::vector<double> labels_;
  Point minimum_;
};

struct Bounded {
  double measured, bound;
};

// Convergence: with the rate η = R/(λ√T), R = ‖w*‖, T steps leave a mean gap of at most
// E f(mean point) − f* ≤ Rλ/√T. Measured over `runs` runs.
Bounded convergence_of(const ConvexToy& toy, int steps, int runs);

// Stability (Hardt, Recht, Singer 2016): two runs on data that differ in one row end at a mean
// distance of at most 2λ Σ η/n, if η ≤ 2/β. Their losses on any row then differ by at most λ times
// that, which bounds the gap between training and held-out loss. With a clip there is no such
// theorem: the number is only shown.
Bounded stability_of(const ConvexToy& toy, int steps, double rate, double clip, int runs);

// By how much one step of gradient descent with a clip moves two points apart, at most, over random
// pairs: f(w) = w·H w/2 with H = diag(1, stiffness). Without a clip it is at most 1 for η ≤ 2/β.
double expansion_of(double stiffness, double rate, double clip, int pairs);

}  // namespace focus
