// Runs an operation on the CPU's tape in double and by its kernels, forward and backward, from the
// same numbers.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <deque>
#include <functional>

#include "close.h"
#include "cuda/ops/ops.h"
#include "tensor/tape.h"

namespace focus::test {

// What came of one run: the output, and the gradient of each input.
struct OperationResult {
  Shape shape;
  std::vector<double> output;
  std::vector<std::vector<double>> gradients;
};

// The numbers that every run starts from.
struct OperationInputs {
  std::vector<Shape> shapes;
  std::vector<std::vector<double>> values;
  // Where a gradient is added to, what is there before; else empty.
  std::vector<std::vector<double>> before;

  // added: for each input whether its gradient is added to ('a') or set ('s').
  OperationInputs(const std::vector<Shape>& all, const std::string& added) : shapes(all) {
    REQUIRE(added.size() == all.size());
    uint32_t which = 1;
    for (size_t i = 0; i < all.size(); ++i) {
      std::vector<double> numbers = random_numbers(all[i].size(), which++);
      // A weight is as small as a model's: else attention would be all on one key.
      if (all[i].rank() == 2)
        for (double& w : numbers) w /= std::sqrt(double(all[i].last()));
      values.push_back(rounded<float>(numbers));
      std::vector<double> there = rounded<float>(random_numbers(all[i].size(), which++));
      if (added[i] == 's') there.clear();
      before.push_back(there);
    }
  }
  static std::vector<double> output_gradient(size_t n) {
    return rounded<float>(random_numbers(n, 99));
  }
};

using Operation = std::function<Tensor<double>(Tape<double>&, const std::vector<Tensor<double>>&)>;

inline OperationResult on_tape(const OperationInputs& in, const Operation& operation,
                               const Noise& noise = {}) {
  Workers workers;
  Tape<double> tape(workers);
  std::deque<Parameter<double>> inputs;
  std::vector<Tensor<double>> tensors;
  for (size_t i = 0; i < in.shapes.size(); ++i) {
    Parameter<double>& p = inputs.emplace_back("x", in.shapes[i]);
    p.value = in.values[i];
    if (!in.before[i].empty()) p.gradient_value = in.before[i];
    p.gradient.data = p.gradient_value.data();
    tensors.push_back(p.tensor());
  }
  tape.reset(true, noise);
  const Tensor<double> y = operation(tape, tensors);
  const Tensor<double> loss = tape.make({1});
  const std::vector<double> dy = OperationInputs::output_gradient(y.size());
  tape.record(loss, [&tape, &dy, y] { std::copy(dy.begin(), dy.end(), tape.gradient(y)); });
  OperationResult result{y.shape, {y.data, y.data + y.size()}, {}};
  tape.backward(loss);
  for (const Parameter<double>& p : inputs) result.gradients.push_back(p.gradient_value);
  return result;
}

// The same in device memory: outputs and gradients that are set hold NaN first.
struct OnDevice {
  std::vector<gpu::DeviceArray<float>> x, dx;
  gpu::DeviceArray<float> y, dy;

  OnDevice(const OperationInputs& in, const Shape& output)
      : y(output.size()), dy(as<float>(OperationInputs::output_gradient(output.size()))) {
    y.poison();
    for (size_t i = 0; i < in.shapes.size(); ++i) {
      x.emplace_back(as<float>(in.values[i]));
      if (in.before[i].empty())
        dx.emplace_back(in.shapes[i].size()).poison();
      else
        dx.emplace_back(as<float>(in.before[i]));
    }
  }
  OperationResult result(const Shape& output) const {
    OperationResult r{output, as_double(y.host()), {}};
    for (const gpu::DeviceArray<float>& one : dx) r.gradients.push_back(as_double(one.host()));
    return r;
  }
  static std::vector<double> as_double(const std::vector<float>& from) {
    return {from.begin(), from.end()};
  }
};

// Scratch memory for kernels, full of NaN.
inline gpu::DeviceArray<float> scratch(size_t floats) {
  gpu::DeviceArray<float> memory(floats);
  memory.poison();
  return memory;
}

// `units` are rounding errors of float.
inline void check_close(const std::string& what, const OperationInputs& in,
                        const OperationResult& got, const OperationResult& wanted, double units) {
  const std::vector<float> output = as<float>(got.output);
  const std::string far = difference(what, wanted.shape, output.data(), wanted.output, units);
  CHECK_MESSAGE(far.empty(), far);
  for (size_t i = 0; i < wanted.gradients.size(); ++i) {
    const std::vector<float> gradient = as<float>(got.gradients[i]);
    const std::string of_input = difference(str(what, ", gradient of input ", i), in.shapes[i],
                                            gradient.data(), wanted.gradients[i], units);
    CHECK_MESSAGE(of_input.empty(), of_input);
  }
}

// Both sides, compared. kernels(OnDevice&) starts forward and backward.
template <class F>
void same_on_device(const std::string& what, const std::vector<Shape>& shapes,
                    const std::string& added, const Operation& operation, const F& kernels,
                    double units, const Noise& noise = {}) {
  const OperationInputs in(shapes, added);
  const OperationResult wanted = on_tape(in, operation, noise);
  OnDevice device(in, wanted.shape);
  gpu::shuffle_threads(uint64_t(shapes[0].size()));
  kernels(device);
  gpu::shuffle_threads(0);
  check_close(what, in, device.result(wanted.shape), wanted, units);
}

}  // namespace focus::test
