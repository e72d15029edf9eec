// One run of the one-launch kernel on both sides: the CPU's model, and device memory that starts
// with its weights.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cuda/device/device.h"
#include "cuda/one_launch/one_launch.h"
#include "ops/cross_entropy.h"
#include "rng.h"

namespace focus::test {

inline ModelSettings model_of(Pattern pattern, int k, int length, int blocks, double dropout) {
  ModelSettings s;
  s.attention = {pattern, k, is_positional(pattern) ? 1 : 0, 1, dropout};
  s.vocabulary = 7, s.classes = 5, s.length = length, s.blocks = blocks, s.dropout = dropout;
  return s;
}

struct Pair {
  Model<float> model;
  Optimizer<float> optimizer;
  Workers workers{1};
  Tape<float> tape{workers};
  int batch, rows;
  uint64_t seed;
  std::vector<int> tokens, labels, order;
  gpu::DeviceArray<float> parameters, gradients, m, v;
  gpu::DeviceArray<int> d_tokens, d_labels, d_order;

  Pair(const ModelSettings& s, OptimizerKind kind, int batch_, int rows_, uint64_t seed_)
      : model(s), optimizer(kind, model.parameters()), batch(batch_), rows(rows_), seed(seed_) {
    model.initialise(seed);
    Rng rng(seed, Stream::data);
    for (int i = 0; i < rows * s.length; ++i)
      tokens.push_back(int(rng.below(uint32_t(s.vocabulary))));
    for (int i = 0; i < rows; ++i) labels.push_back(int(rng.below(uint32_t(s.classes))));
    order.resize(size_t(rows));
    std::iota(order.begin(), order.end(), 0);
    rng.shuffle(order);
    d_tokens = gpu::DeviceArray<int>(tokens), d_labels = gpu::DeviceArray<int>(labels);
    d_order = gpu::DeviceArray<int>(order);
    const size_t n = gpu::padded_parameters(s);
    parameters = gpu::DeviceArray<float>(n), gradients = gpu::DeviceArray<float>(n);
    m = gpu::DeviceArray<float>(std::vector<float>(n)),
    v = gpu::DeviceArray<float>(std::vector<float>(n));
    gradients.poison();
    upload();
  }

  template <class F>
  std::vector<float> flat(const F& of) const {
    std::vector<float> all;
    for (const Parameter<float>& p : model.parameters())
      all.insert(all.end(), of(p).begin(), of(p).end());
    all.resize(parameters.size());
    return all;
  }
  std::vector<float> weights() const {
    return flat([](const auto& p) -> const auto& { return p.value; });
  }
  void upload() { parameters.set(weights()); }

  OneLaunchRun run() const {
    return {parameters.data(),
            gradients.data(),
            m.data(),
            v.data(),
            d_tokens.data(),
            d_labels.data(),
            d_order.data(),
            rows,
            seed,
            40,
            0.1,
            0.5};
  }

  // Step n's batch.
  int batch_of(int n, std::vector<int>& t, std::vector<int>& l) const {
    const int first = n * batch, count = std::min(batch, rows - first), L = model.settings().length;
    for (int b = 0; b < count; ++b) {
      const int row = order[size_t(first + b)];
      t.insert(t.end(), tokens.begin() + row * L, tokens.begin() + (row + 1) * L);
      l.push_back(labels[size_t(row)]);
    }
    return count;
  }

  // The CPU's step; returns loss and leaves the gradient in the model.
  double step(int n) {
    std::vector<int> t, l;
    const int count = batch_of(n, t, l);
    tape.reset(true, {true, seed, uint32_t(40 + n), 0});
    model.zero_gradients();
    const Tensor<float> loss = cross_entropy(tape, model.forward(tape, t.data(), count), l.data());
    tape.backward(loss);
    const double norm = gradient_norm(model.parameters());
    optimizer.set_steps_taken(40 + n);
    optimizer.step(model.parameters(), 0.1, clip_factor(norm, 0.5));
    return double(loss.data[0]);
  }
};

inline double relative_distance(const std::vector<float>& got, const std::vector<float>& wanted,
                                size_t n) {
  double error = 0, size = 0;
  for (size_t i = 0; i < n; ++i) {
    error += std::pow(double(got[i]) - double(wanted[i]), 2);
    size += std::pow(double(wanted[i]), 2);
  }
  return std::sqrt(error / size);
}

}  // namespace focus::test
