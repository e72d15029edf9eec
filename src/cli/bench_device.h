// What `focus bench step` times on a device.
#pragma once

#include "clock.h"
#include "ops/cross_entropy.h"
#include "rng.h"
#include "train/optimizer.h"
#include "train/placed_model.h"

namespace focus {

// Several models on a device, and one batch of random data for each; a step of all of them is
// recorded once and then repeated.
class DeviceTrainees {
 public:
  DeviceTrainees(Device<float>& device, const ModelSettings& settings, OptimizerKind optimizer,
                 int batch, int models)
      : device_(device),
        adam_(optimizer == OptimizerKind::adam),
        rows_(batch * models),
        model_(device, settings, seeds(models)),
        tape_(workers_, &device),
        record_(device.new_record()) {
    Model<float> host(settings);
    for (int i = 0; i < models; ++i) {
      host.initialise(uint64_t(i) + 1);
      model_.upload(i, host);
    }
    Rng rng(1, Stream::data);
    std::vector<int> tokens, labels;
    for (int i = 0; i < rows_ * settings.length; ++i)
      tokens.push_back(int(rng.below(uint32_t(settings.vocabulary))));
    for (int b = 0; b < rows_; ++b) labels.push_back(int(rng.below(uint32_t(settings.classes))));
    tokens_ = DeviceBuffer<int>(device, tokens);
    labels_ = DeviceBuffer<int>(device, labels);
    rates_ = DeviceBuffer<float>(device, std::vector<float>(size_t(models), 0.1f));
    if (adam_)
      for (DeviceBuffer<float>* moments : {&m_, &v_})
        *moments =
            DeviceBuffer<float>(device, std::vector<float>(size_t(models) * model_.stride()));
    device.set_counters({});
    step();  // the tape's memory gets its size, and in the reset its place
    tape_.reset(false);
  }

  // Seconds for so many steps.
  double run(int steps) {
    device_.take_bad_steps();  // waits for the device
    const double start = seconds_now();
    for (int i = 0; i < steps; ++i) record_->run([this] { step(); });
    device_.take_bad_steps();
    return seconds_now() - start;
  }
  size_t parameters() const { return model_.parameters(); }

 private:
  static std::vector<uint64_t> seeds(int models) {
    std::vector<uint64_t> all(static_cast<size_t>(models));
    for (size_t i = 0; i < all.size(); ++i) all[i] = i + 1;
    return all;
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
  bool adam_;
  int rows_;
  PlacedModel model_;
  Workers workers_;
  Tape<float> tape_;
  std::unique_ptr<Device<float>::Recorded> record_;
  DeviceBuffer<int> tokens_, labels_;
  DeviceBuffer<float> rates_, m_, v_;
};

}  // namespace focus
