// Runs in device memory: weights, gradients and the optimiser's moments in one piece for each run,
// in the order of Model::parameters(), and the data that they train on.
#pragma once

#include <vector>

#include "cuda/ops/ops.h"
#include "train/stepper.h"

namespace focus::gpu {

class PlacedRuns {
 public:
  PlacedRuns(const StepSettings& settings, std::vector<StepRun> runs);

  void load(int run, const Model<float>& model, const Optimizer<float>& optimizer);
  void store(int run, Model<float>& model, Optimizer<float>& optimizer) const;
  void set_plane(const Model<float>& centre, const Direction& X, const Direction& Y);
  void move_to(const std::vector<PlanePoint>& points);
  // A run's gradients, tensor by tensor.
  std::vector<std::vector<float>> gradients_of(int run) const;

  int count() const { return int(runs_.size()); }
  uint64_t seed(int run) const { return runs_[size_t(run)].seed; }
  size_t parameters() const { return parameters_; }
  size_t stride() const { return stride_; }  // from one run's piece to the next, in floats
  Runs runs() const { return {count(), stride_}; }
  float* values() const { return values_.data(); }
  float* snapshot() const { return snapshot_.data(); }  // room for a copy of the values
  size_t value_bytes() const { return values_.size() * sizeof(float); }
  float* gradients() const { return gradients_.data(); }
  float* m() const { return m_.data(); }  // nullptr for SGD
  float* v() const { return v_.data(); }
  // (R,stride) Parameter::rate_factor for each number; nullptr while all are 1.
  float* rate_factors() const { return rate_factors_.data(); }
  const float* positions() const { return positions_.data(); }

  // One split of the data (tasks/padded_data.h): each run's tokens and labels, if it has labels.
  struct Part {
    int rows = 0, length = 0, row_stride = 0, order_stride = 0;
    std::vector<const int*> tokens, labels;                      // of each run, in device memory
    DeviceArray<const int*> tokens_on_device, labels_on_device;  // the same
    std::vector<DeviceArray<int>> memory;
  };
  const Part& part(Split split) const { return split == Split::train ? train_ : held_out_; }

  // The epochs' orders (R,rows) and rates (R), on their way to the kernels.
  void send(const std::vector<Epoch>& epochs);
  const int* order() const { return order_.data(); }
  const float* rates() const { return rates_.data(); }

 private:
  Part place(const PaddedData RunData::*split) const;

  std::vector<StepRun> runs_;
  std::vector<size_t> sizes_;  // of the parameters
  size_t parameters_ = 0, stride_ = 0;
  DeviceArray<float> values_, snapshot_, gradients_, m_, v_, rate_factors_, positions_, rates_;
  DeviceArray<int> order_;
  DeviceArray<double> plane_;   // (3,parameters): centre, X, Y
  DeviceArray<double> points_;  // (R,2)
  Part train_, held_out_;
};

}  // namespace focus::gpu
