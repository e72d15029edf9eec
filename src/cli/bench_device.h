// What `focus bench step` times on a device.
#pragma once

#include <numeric>

#include "clock.h"
#include "error.h"
#include "ops/cross_entropy.h"
#include "rng.h"
#include "train/optimizer.h"
#include "train/placed_model.h"
#include "train/step_kernel.h"

namespace focus {

// How the steps of several models come to the device: the host issues every operation; or these are
// recorded once and repeated as a graph; or so are the larger steps that a block's operations are
// fused to; or one kernel makes many steps by itself.
enum class StepLaunch { operations, graph, fused, one };

// Several models on a device, and random data for each: one batch, which is taken again and again,
// or, for a kernel that makes many steps, as many batches as it makes of them.
class DeviceTrainees {
 public:
  DeviceTrainees(Device<float>& device, const ModelSettings& settings, OptimizerKind optimizer,
                 int batch, int models, StepLaunch how, Precision precision = Precision::fp32)
      : device_(device),
        how_(how),
        adam_(optimizer == OptimizerKind::adam),
        rows_(batch * models),
        model_(device, settings, seeds(models)),
        tape_(workers_, &device),
        record_(device.new_record()) {
    device.fuse_blocks(how == StepLaunch::fused);
    device.set_precision(precision);
    Model<float> host(settings);
    for (int i = 0; i < models; ++i) {
      host.initialise(uint64_t(i) + 1);
      model_.upload(i, host);
    }
    Rng rng(1, Stream::data);
    std::vector<int> tokens, labels;
    const int rows = how == StepLaunch::one ? rows_ * steps_a_time() : rows_;
    for (int i = 0; i < rows * settings.length; ++i)
      tokens.push_back(int(rng.below(uint32_t(settings.vocabulary))));
    for (int b = 0; b < rows; ++b) labels.push_back(int(rng.below(uint32_t(settings.classes))));
    tokens_ = DeviceBuffer<int>(device, tokens);
    labels_ = DeviceBuffer<int>(device, labels);
    rates_ = DeviceBuffer<float>(device, std::vector<float>(size_t(models), 0.1f));
    if (adam_)
      for (DeviceBuffer<float>* moments : {&m_, &v_})
        *moments =
            DeviceBuffer<float>(device, std::vector<float>(size_t(models) * model_.stride()));
    device.set_counters({});
    if (how == StepLaunch::one) {
      kernel_ = device.step_kernel(settings, optimizer, batch, models);
      kernel_->set_precision(precision);
      place_runs(rows / models, settings.length);
      return;
    }
    step();  // the tape's memory gets its size, and in the reset its place
    tape_.reset(false);
  }

  // Steps that are timed together: what training makes in one launch, or a few.
  int steps_a_time() const { return how_ == StepLaunch::one ? 64 : 20; }

  // Seconds for so many steps, from a device that waits to one that has made them.
  double run() {
    device_.take_bad_steps();  // waits for the device
    const double start = seconds_now();
    if (kernel_)
      for (const OneLaunchSteps& made : kernel_->train(runs_, 0, steps_a_time()))
        if (made.failed) fail_run("bench step: a loss that is no number");
    for (int i = 0; !kernel_ && i < steps_a_time(); ++i) {
      if (how_ == StepLaunch::operations)
        step();
      else
        record_->run([this] { step(); });
    }
    device_.take_bad_steps();
    return seconds_now() - start;
  }

  // Kernels that the device is told to start, for each step.
  double kernels_a_step() {
    const uint64_t before = device_.facts().operations_started;
    if (kernel_)
      kernel_->train(runs_, 0, steps_a_time());
    else
      step();
    return double(device_.facts().operations_started - before) / (kernel_ ? steps_a_time() : 1);
  }
  size_t parameters() const { return model_.parameters(); }

 private:
  static std::vector<uint64_t> seeds(int models) {
    std::vector<uint64_t> all(static_cast<size_t>(models));
    for (size_t i = 0; i < all.size(); ++i) all[i] = i + 1;
    return all;
  }
  void place_runs(int rows, int length) {
    std::vector<int> order(static_cast<size_t>(rows));
    std::iota(order.begin(), order.end(), 0);
    order_ = DeviceBuffer<int>(device_, order);
    for (int r = 0; r < model_.runs(); ++r) {
      const size_t at = size_t(r) * model_.stride(), first = size_t(r) * size_t(rows);
      runs_.push_back({.parameters = model_.values() + at,
                       .gradients = model_.gradients() + at,
                       .m = adam_ ? m_.data() + at : nullptr,
                       .v = adam_ ? v_.data() + at : nullptr,
                       .tokens = tokens_.data() + first * size_t(length),
                       .labels = labels_.data() + first,
                       .order = order_.data(),
                       .rows = rows,
                       .seed = uint64_t(r) + 1});
    }
  }
  void step() {
    model_.zero_gradients();
    tape_.reset(true, Noise{true, 0, 0, 0});
    const Tensor<float> loss =
        cross_entropy(tape_, model_.model().forward(tape_, tokens_.data(), rows_), labels_.data());
    tape_.backward(loss);
    device_.update(tape_, {adam_, 0.5, loss.data, model_.values(), model_.gradients(), m_.data(),
                           v_.data(), rates_.data(), model_.parameters()});
    device_.finish_step();
  }

  Device<float>& device_;
  StepLaunch how_;
  bool adam_;
  int rows_;
  PlacedModel model_;
  Workers workers_;
  Tape<float> tape_;
  std::unique_ptr<Device<float>::Recorded> record_;
  std::unique_ptr<StepKernel> kernel_;  // of StepLaunch::one
  std::vector<OneLaunchRun> runs_;
  DeviceBuffer<int> tokens_, labels_, order_;
  DeviceBuffer<float> rates_, m_, v_;
};

}  // namespace focus
