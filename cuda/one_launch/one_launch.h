// A whole training step in one kernel, for the paper's short models (up to 48 tokens, width 64, one
// head): forward, backward, gradient-norm clip and update, for many runs at once and for as many
// steps as wanted, up to an epoch, without a word from the host.
//
// A run is one seed of one set of settings. All runs of an object share the model's shape, the
// optimiser and the batch size; each has its own weights, data, order, seed and rate. What a run
// computes does not depend on which others are beside it: the same bits alone or among ten.
//
// Parameters of a run: one array of padded_parameters(model) floats that starts at a multiple of 16
// bytes, tensor after tensor in the order of Model::parameters() (weights [out,in]); the floats
// after the last parameter are padding. Gradients and Adam's moments likewise.
// Dropout draws the CPU's random numbers (ops/dropout.h), so the masks are equal.
// Products are in float32 or, on tensor cores, in another precision; all else is float32 (mma.cuh).
// Plain C++: this header needs no CUDA. Without nvcc the kernels run on the CPU (simt/emulator.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/model.h"
#include "train/optimizer.h"
#include "train/step_kernel.h"

namespace focus::gpu {

// "" if models like this can be trained in one launch on this device, else why not.
std::string one_launch_problem(const ModelSettings& model, int batch);

// Floats from the start of a run's parameters to where another run's may start.
size_t padded_parameters(const ModelSettings& model);

class OneLaunch final : public StepKernel {
 public:
  // Takes the device memory for up to `runs` runs at once. InputError with one_launch_problem().
  OneLaunch(const ModelSettings& model, OptimizerKind optimizer, int batch, int runs,
            Precision precision = Precision::fp32);
  ~OneLaunch() override;
  void set_precision(Precision precision) override;

  // RunError if the blocks of a launch wait for each other longer than the patience below.
  std::vector<OneLaunchSteps> train(const std::vector<OneLaunchRun>& runs, int first_step,
                                    int steps) override;
  std::vector<Evaluation> evaluate(const std::vector<OneLaunchRun>& runs) override;

  // For tests and benchmarks.
  void set_patience(double seconds);  // default 30
  void set_blocks_a_run(int blocks);  // 0: as many as the device has room for
  void leave_out_a_block(bool out);   // one block does not come: the others must give up
  int blocks_a_run(int runs) const;   // that train() would use

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace focus::gpu
