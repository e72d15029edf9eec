// Small things that tests of gradients share.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>

#include "close.h"
#include "tensor/gradient_check.h"

namespace focus::test {

// A scalar that depends on every element of x, each in its own way: Σ w_i x_i. The weights must
// stay in memory until backward.
template <class T>
Tensor<T> weighted_sum(Tape<T>& tape, const Tensor<T>& x, const std::vector<double>& weights) {
  const Tensor<T> y = tape.make({1});
  const double* w = weights.data();
  y.data[0] = T(0);
  for (size_t i = 0; i < x.size(); ++i) y.data[0] += T(w[i]) * x.data[i];
  tape.record(y, [=, &tape] {
    const T dy = tape.gradient(y)[0];
    T* dx = tape.gradient(x);
    for (size_t i = 0; i < x.size(); ++i) dx[i] += dy * T(w[i]);
  });
  return y;
}

// x as an activation. Its gradient is memory that the tape lends, with whatever was in it; a
// parameter's gradient is added to.
template <class T>
Tensor<T> copied(Tape<T>& tape, const Tensor<T>& x) {
  const Tensor<T> y = tape.make(x.shape);
  std::copy(x.data, x.data + x.size(), y.data);
  tape.record(y, [=, &tape] {
    const T* dy = tape.gradient(y);
    T* dx = tape.gradient(x);
    for (size_t i = 0; i < x.size(); ++i) dx[i] += dy[i];
  });
  return y;
}

// Resets the tape to record, with NaN in the first `count` numbers of its memory, so that what an
// operation forgets to write shows.
template <class T>
void reset_poisoned(Tape<T>& tape, Noise noise = {}, size_t count = 20000) {
  T* memory = tape.template memory<T>(count);
  std::fill(memory, memory + count, std::numeric_limits<T>::quiet_NaN());
  tape.reset(true, noise);
}

// An input of an operation, as a parameter so that its gradient stays.
template <class T>
struct Input : Parameter<T> {
  Input(const std::string& name, const Shape& shape, const std::vector<double>& numbers)
      : Parameter<T>(name, shape) {
    if (numbers.size() != shape.size()) fail_input(name, ": wrong number of values for its shape");
    std::copy(numbers.begin(), numbers.end(), this->value.begin());
  }
  Input(const std::string& name, const Shape& shape, uint32_t which)
      : Input(name, shape, random_numbers(shape.size(), which)) {}
};

// Checks the gradient of Σ w_i op(inputs)_i, with weights w of its own, for every input. Operations
// should get one input as it is and another copied(), since backwards treat the two differently.
template <class Op>
void check_operation(const Op& op, const std::vector<Parameter<double>*>& inputs,
                     const GradientCheck& settings = {}) {
  std::vector<double> weights;
  const auto loss = [&](Tape<double>& tape) {
    if (tape.recording()) reset_poisoned(tape, settings.noise);
    const Tensor<double> y = op(tape);
    if (weights.empty()) weights = random_numbers(y.size(), 99);
    return weighted_sum(tape, y, weights);
  };
  const GradientReport report =
      check_gradients(std::function<Tensor<double>(Tape<double>&)>(loss), inputs, settings);
  CHECK_MESSAGE(report.ok, report.text);
}

}  // namespace focus::test
