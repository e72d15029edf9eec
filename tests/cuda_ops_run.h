// Runs an operation on the CPU and on the device, forward and backward, from the same numbers.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <deque>
#include <functional>

#include "close.h"
#include "cuda/ops/ops.h"

namespace focus::test {

// What came of one run: the output, and the gradient of each input.
struct OperationResult {
  Shape shape;
  std::vector<double> output;
  std::vector<std::vector<double>> gradients;
};

template <class T>
using Operation = std::function<Tensor<T>(Tape<T>&, const std::vector<Tensor<T>>&)>;

// The numbers and gradients of tensors in a device's memory, or in the host's without one.
template <class T>
struct Placed {
  Device<T>* device;
  std::deque<Parameter<T>> inputs;
  std::deque<gpu::DeviceArray<T>> memory;

  Placed(Device<T>* where, const std::vector<Shape>& shapes) : device(where) {
    uint32_t which = 1;
    for (const Shape& shape : shapes) {
      Parameter<T>& p = inputs.emplace_back("x", shape);
      std::vector<double> numbers = random_numbers(shape.size(), which++);
      // A weight is as small as a model's: else attention would be all on one key.
      if (shape.rank() == 2)
        for (double& w : numbers) w /= std::sqrt(double(shape.last()));
      p.value = as<T>(rounded<float>(numbers));
      // Backward adds: what is there before must survive.
      p.gradient_value = as<T>(rounded<float>(random_numbers(shape.size(), which++)));
      p.gradient.data = p.gradient_value.data();
      if (!device) continue;
      gpu::DeviceArray<T>&value = memory.emplace_back(p.value),
      &gradient = memory.emplace_back(p.gradient_value);
      p.place(value.data(), gradient.data());
    }
  }
  std::vector<Tensor<T>> tensors() {
    std::vector<Tensor<T>> all;
    for (Parameter<T>& p : inputs) all.push_back(p.tensor());
    return all;
  }
  std::vector<T> read(const T* from, size_t n) const {
    std::vector<T> host(n);
    if (device)
      device->download(host.data(), from, n * sizeof(T));
    else
      host.assign(from, from + n);
    return host;
  }
};

// Random numbers in, random numbers as the output's gradient.
template <class T>
OperationResult run_operation(Device<T>* device, const std::vector<Shape>& shapes,
                              const Operation<T>& operation, const Noise& noise = {}) {
  Workers workers;
  Tape<T> tape(workers, device);
  Placed<T> placed(device, shapes);
  tape.reset(true, noise);
  const Tensor<T> y = operation(tape, placed.tensors());
  const Tensor<T> loss = tape.make({device ? device->runs() : 1});
  const std::vector<T> dy = as<T>(rounded<float>(random_numbers(y.size(), 99)));
  tape.record(loss, [&tape, &dy, y, device] {
    T* to = tape.gradient(y);
    if (device)
      device->upload(to, dy.data(), dy.size() * sizeof(T));
    else
      std::copy(dy.begin(), dy.end(), to);
  });
  OperationResult result{y.shape, {}, {}};
  const std::vector<T> output = placed.read(y.data, y.size());
  result.output.assign(output.begin(), output.end());
  tape.backward(loss);
  for (Parameter<T>& p : placed.inputs) {
    const std::vector<T> g = placed.read(p.gradient.data, p.value.size());
    result.gradients.emplace_back(g.begin(), g.end());
  }
  return result;
}

// Compares the device in float with the CPU in double, which begin with the same numbers. `units`
// are rounding errors of float.
template <class F>
void same_on_device(const std::string& what, const std::vector<Shape>& shapes, const F& operation,
                    double units, const Noise& noise = {}) {
  gpu::CudaOps device;
  device.set_runs({noise.seed}, 0);
  gpu::shuffle_threads(uint64_t(shapes[0].size()));
  const OperationResult got = run_operation<float>(&device, shapes, operation, noise);
  const OperationResult wanted = run_operation<double>(nullptr, shapes, operation, noise);
  const std::vector<float> output = as<float>(got.output);
  CHECK_MESSAGE(difference(what, got.shape, output.data(), wanted.output, units).empty(),
                difference(what, got.shape, output.data(), wanted.output, units));
  for (size_t i = 0; i < wanted.gradients.size(); ++i) {
    const std::vector<float> gradient = as<float>(got.gradients[i]);
    const std::string name = str(what, ", gradient of input ", i);
    const std::string far =
        difference(name, shapes[i], gradient.data(), wanted.gradients[i], units);
    CHECK_MESSAGE(far.empty(), far);
  }
}

}  // namespace focus::test
