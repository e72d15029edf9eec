// One training step, made in three ways from the same weights and the same batch: by the CPU,
// operation by operation on the device, and in one launch there.
#pragma once

#include <numeric>

#include "cuda/one_launch/one_launch.h"
#include "cuda/ops/ops.h"
#include "ops/cross_entropy.h"
#include "train/placed_model.h"

namespace focus::gpu {

struct StepMade {
  double loss = 0;
  std::vector<float> gradients;  // before clipping
  std::vector<float> weights;    // after the update
};

// ‖got − wanted‖ / ‖wanted‖.
inline double relative_distance(const std::vector<float>& got, const std::vector<float>& wanted) {
  double error = 0, size = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    error += std::pow(double(got[i]) - double(wanted[i]), 2);
    size += std::pow(double(wanted[i]), 2);
  }
  return std::sqrt(error / size);
}

// A run with random data of its own: `rows` sequences, taken `batch` at a time in a shuffled order.
class StepWays {
 public:
  static constexpr double rate = 0.1;

  StepWays(const ModelSettings& settings, OptimizerKind kind, int batch, int rows, uint64_t seed,
           double clip = 0.5)
      : batch_(batch),
        rows_(rows),
        seed_(seed),
        clip_(clip),
        model_(settings),
        optimizer_(kind, model_.parameters()),
        placed_(device_, settings, {seed}),
        host_tape_(workers_),
        device_tape_(workers_, &device_) {
    device_.fuse_blocks(false);
    model_.initialise(seed);
    Rng rng(seed, Stream::data);
    for (int i = 0; i < rows * settings.length; ++i)
      tokens_.push_back(int(rng.below(uint32_t(settings.vocabulary))));
    for (int i = 0; i < rows; ++i) labels_.push_back(int(rng.below(uint32_t(settings.classes))));
    order_.resize(size_t(rows));
    std::iota(order_.begin(), order_.end(), 0);
    rng.shuffle(order_);
    d_tokens_ = DeviceArray<int>(tokens_), d_labels_ = DeviceArray<int>(labels_);
    d_order_ = DeviceArray<int>(order_);
    const size_t n = padded_parameters(settings);
    for (DeviceArray<float>* x : {&parameters_, &gradients_}) *x = DeviceArray<float>(n);
    for (DeviceArray<float>* x : {&m_, &v_}) *x = DeviceArray<float>(std::vector<float>(n));
    gradients_.poison();
    set_weights(weights());
  }

  size_t count() const { return model_.parameter_count(); }
  int steps() const { return (rows_ + batch_ - 1) / batch_; }
  std::vector<float> weights() const {
    return flat([](const Parameter<float>& p) -> const auto& { return p.value; });
  }
  // For the CPU's model and for what run() names.
  void set_weights(const std::vector<float>& all) {
    const float* from = all.data();
    for (Parameter<float>& p : model_.parameters()) {
      std::copy(from, from + p.value.size(), p.value.begin());
      from += p.value.size();
    }
    copy_to_device(parameters_.data(), all.data(), all.size() * sizeof(float));
  }

  // The run as the one launch takes it, and where its results are.
  OneLaunchRun run() const {
    return {parameters_.data(),
            gradients_.data(),
            m_.data(),
            v_.data(),
            d_tokens_.data(),
            d_labels_.data(),
            d_order_.data(),
            rows_,
            seed_,
            steps_before,
            rate,
            clip_};
  }
  StepMade launched(const OneLaunchSteps& made) const {
    std::vector<float> gradients = gradients_.host(), weights = parameters_.host();
    gradients.resize(count()), weights.resize(count());
    return {made.losses.empty() ? NAN : double(made.losses.back()), gradients, weights};
  }

  // The CPU's step number n of the epoch; its model has the new weights afterwards.
  StepMade on_cpu(int n) {
    std::vector<int> tokens, labels;
    const int count = gather(n, tokens, labels);
    host_tape_.reset(true, {true, seed_, steps_before + uint32_t(n), 0});
    model_.zero_gradients();
    const Tensor<float> loss =
        cross_entropy(host_tape_, model_.forward(host_tape_, tokens.data(), count), labels.data());
    host_tape_.backward(loss);
    const auto gradients =
        flat([](const Parameter<float>& p) -> const auto& { return p.gradient_value; });
    optimizer_.set_steps_taken(long(steps_before) + n);
    optimizer_.step(model_.parameters(), rate,
                    clip_factor(gradient_norm(model_.parameters()), clip_));
    return {double(loss.data[0]), gradients, weights()};
  }

  // The same from the CPU's present weights, every operation a kernel of its own or several. SGD.
  StepMade by_operation(int n) {
    std::vector<int> tokens, labels;
    const int count = gather(n, tokens, labels);
    const DeviceArray<int> d_tokens(tokens), d_labels(labels);
    const DeviceArray<float> rates(std::vector<float>{float(rate)});
    placed_.upload(0, model_);
    device_.set_counters({steps_before + uint64_t(n), steps_before + uint32_t(n), uint32_t(n)});
    const Tensor<float> loss = device_step(d_tokens.data(), d_labels.data(), count, rates.data());
    StepMade made{0, std::vector<float>(this->count()), std::vector<float>(this->count())};
    float value = 0;
    device_.download(&value, loss.data, sizeof value);
    device_.download(made.gradients.data(), placed_.gradients(), this->count() * sizeof(float));
    device_.download(made.weights.data(), placed_.values(), this->count() * sizeof(float));
    made.loss = double(value);
    return made;
  }

 private:
  static constexpr uint32_t steps_before = 40;

  template <class F>
  std::vector<float> flat(const F& of) const {
    std::vector<float> all;
    for (const Parameter<float>& p : model_.parameters())
      all.insert(all.end(), of(p).begin(), of(p).end());
    return all;
  }
  int gather(int n, std::vector<int>& tokens, std::vector<int>& labels) const {
    const int first = n * batch_, count = std::min(batch_, rows_ - first);
    const int L = model_.settings().length;
    for (int b = 0; b < count; ++b) {
      const int row = order_[size_t(first + b)];
      tokens.insert(tokens.end(), tokens_.begin() + row * L, tokens_.begin() + (row + 1) * L);
      labels.push_back(labels_[size_t(row)]);
    }
    return count;
  }
  // What RunGroup::train_step issues once the batch is there.
  Tensor<float> device_step(const int* tokens, const int* labels, int count, float* rates) {
    placed_.zero_gradients();
    device_tape_.reset(true, Noise{true, 0, 0, 0});  // seed and step are on the device
    const Tensor<float> loss =
        cross_entropy(device_tape_, placed_.model().forward(device_tape_, tokens, count), labels);
    device_tape_.backward(loss);
    device_.update(device_tape_, {false, clip_, loss.data, placed_.values(), placed_.gradients(),
                                  nullptr, nullptr, rates, placed_.parameters()});
    device_.finish_step();
    return loss;
  }

  int batch_, rows_;
  uint64_t seed_;
  double clip_;
  Model<float> model_;
  Optimizer<float> optimizer_;
  CudaOps device_;
  PlacedModel placed_;
  Workers workers_{1};
  Tape<float> host_tape_, device_tape_;
  std::vector<int> tokens_, labels_, order_;
  DeviceArray<float> parameters_, gradients_, m_, v_;
  DeviceArray<int> d_tokens_, d_labels_, d_order_;
};

}  // namespace focus::gpu
