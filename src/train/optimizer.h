// Gradient clipping and the two optimisers of the paper: SGD and Adam.
#pragma once

#include <deque>
#include <string_view>
#include <vector>

#include "tensor/tape.h"

namespace focus {

enum class OptimizerKind { sgd, adam };

// Names as on the command line: sgd, adam. Unknown: InputError.
OptimizerKind optimizer_of(std::string_view name);
const char* name_of(OptimizerKind kind);

// The 2-norm of the gradients of all that is trained (Parameter::rate_factor), summed in double and
// in a fixed order.
template <class T>
double gradient_norm(const std::deque<Parameter<T>>& parameters);

// The factor that brings a gradient of this norm down to at most `clip` (clip ≤ 0: never). As in
// PyTorch's clip_grad_norm_, 1e-6 is added to the norm.
double clip_factor(double norm, double clip);

// The learning rate of an epoch after so many have been done: lr · decay^epochs.
double decayed_rate(double lr, double decay, int epochs_done);

// One optimiser for one model.
//   SGD:  w -= lr · g
//   Adam: m = β₁m + (1-β₁)g;  v = β₂v + (1-β₂)g²;  w -= lr · m̂ / (√v̂ + ε), where m̂ = m / (1-β₁ᵗ),
//         v̂ = v / (1-β₂ᵗ), t counts the steps from 1 (Kingma and Ba 2015, algorithm 1); β₁ = 0.9,
//         β₂ = 0.999, ε = 1e-8.
template <class T>
class Optimizer {
 public:
  Optimizer(OptimizerKind kind, const std::deque<Parameter<T>>& parameters);

  // One step with every gradient multiplied by `gradient_factor` first, at the rate lr times each
  // parameter's own factor. What is not trained keeps its numbers, and its moments theirs.
  void step(std::deque<Parameter<T>>& parameters, double lr, double gradient_factor);

  // Adam's state, for checkpoints: moments in the parameters' order (empty for SGD), steps taken.
  OptimizerKind kind() const { return kind_; }
  std::vector<std::vector<T>>& first_moments() { return m_; }
  const std::vector<std::vector<T>>& first_moments() const { return m_; }
  std::vector<std::vector<T>>& second_moments() { return v_; }
  const std::vector<std::vector<T>>& second_moments() const { return v_; }
  long steps_taken() const { return steps_; }
  void set_steps_taken(long steps) { steps_ = steps; }

 private:
  OptimizerKind kind_;
  long steps_ = 0;
  std::vector<std::vector<T>> m_, v_;
};

}  // namespace focus
