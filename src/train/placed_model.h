// A model whose parameters are in a device's memory, once for each of several runs.
//
// Run r's parameters are one piece, in the order of Model::parameters(), which is that of the
// checkpoints; the gradients likewise. Pieces lie `stride` numbers apart.
#pragma once

#include "model/model.h"
#include "tensor/device_buffer.h"

namespace focus {

class PlacedModel {
 public:
  // All numbers are 0 until upload(). Tells the device about the runs.
  PlacedModel(Device<float>& device, const ModelSettings& settings,
              const std::vector<uint64_t>& seeds);

  Model<float>& model() { return model_; }
  size_t parameters() const { return parameters_; }
  size_t stride() const { return stride_; }
  int runs() const { return runs_; }
  float* values() const { return values_.data(); }
  float* gradients() const { return gradients_.data(); }
  // Takes each parameter's own factor on the rate for this run (Parameter::rate_factor).
  void set_rate_factors(int run, const Model<float>& from);
  // (runs,stride) of them; nullptr while all are 1.
  const float* rate_factors() const {
    return rate_factors_.size() > 0 ? rate_factors_.data() : nullptr;
  }
  void zero_gradients() { device_.fill(gradients(), gradients_.size(), 0.f); }

  // Between a run's piece and a model of the same settings in the host's memory.
  void upload(int run, const Model<float>& from);
  void download(int run, Model<float>& to) const;
  void download_gradients(int run, Model<float>& to) const;

 private:
  Device<float>& device_;
  Model<float> model_;
  int runs_;
  size_t parameters_, stride_;
  DeviceBuffer<float> values_, gradients_, positions_, rate_factors_;
};

}  // namespace focus
