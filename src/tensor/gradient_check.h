// Checks handwritten gradients against differences of the function itself, in double.
//
// For every element x of every input:  f'(x) ≈ (f(x+h) - f(x-h)) / 2h.
//
// The step: the formula's own error is h²f'''/6, rounding adds about εf/h (ε = 2.2e-16, f computed
// to full precision). With f and f''' of size 1 their sum is smallest near h = ∛ε ≈ 6e-6, and is
// then about ε^⅔ ≈ 4e-11 (Press et al., Numerical Recipes, "Numerical derivatives"). Longer sums
// round more, so the default tolerance leaves room: real mistakes are wrong by percents.
//
// Where f has a kink between x-h and x+h (ReLU near 0, a top-k choice that changes), no gradient is
// right. Differences with half the step tell: for a smooth f they agree with those of the whole
// step, at a kink they do not. Such elements are skipped and counted, not passed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tensor/tape.h"

namespace focus {

struct GradientCheck {
  double step = 6.0554544523933395e-6;  // ∛ε, multiplied by |x| where |x| > 1
  double tolerance = 1e-7;              // an element's limit is tolerance · (1 + |f'|)
  double most_skipped = 0.1;            // a larger share of skipped elements fails the check
  Noise noise = {};                     // of every pass over a tape
  // Called after each evaluation, where given: a number that identifies the discrete choice f just
  // made, such as a hash of the kept keys. Elements whose step changes it are skipped.
  std::function<uint64_t()> choice = nullptr;
};

struct GradientReport {
  bool ok = false;
  int elements = 0;  // all, those skipped included
  int kinks = 0;     // skipped: f is not differentiable within the step
  int moved = 0;     // skipped: the discrete choice changed within the step
  double worst = 0;  // largest error as a share of its limit, over the elements not skipped
  // One line: the worst element by name and coordinates, its gradient and the expected one.
  std::string text;
};

// Compares inputs[i]->gradient_value with differences of `value`, which must depend on
// inputs[i]->value. Inputs are changed one number at a time and put back.
GradientReport check_gradients(const std::function<double()>& value,
                               const std::vector<Parameter<double>*>& inputs,
                               const GradientCheck& settings = {});

// The same for a loss built on a tape: runs backward once, then checks the gradients of the inputs.
// `loss` returns a tensor with one element.
GradientReport check_gradients(const std::function<Tensor<double>(Tape<double>&)>& loss,
                               const std::vector<Parameter<double>*>& inputs,
                               const GradientCheck& settings = {});

}  // namespace focus
