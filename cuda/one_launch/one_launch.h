// A whole training step in one kernel, for the paper's short models (up to 48 tokens, width 64, one
// head): forward, backward, gradient-norm clip and update, for many runs at once and for as many
// steps as wanted, up to an epoch, without a word from the host.
//
// Dropout draws the CPU's random numbers (ops/dropout.h), so the masks are equal.
// Products are in float32 or, on tensor cores, in another precision; all else is float32 (mma.cuh).
// Plain C++: this header needs no CUDA. Without nvcc the kernels run on the CPU (simt/emulator.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "train/stepper.h"

namespace focus::gpu {

// "" if models like this can be trained in one launch on this device, else why not.
std::string one_launch_problem(const ModelSettings& model, int batch);

class OneLaunch final : public Stepper {
 public:
  // InputError with one_launch_problem(). Every launch that trains or evaluates throws RunError if
  // its blocks wait for each other longer than the patience below.
  OneLaunch(const StepSettings& settings, std::vector<StepRun> runs);
  ~OneLaunch() override;

  void load(int run, const Model<float>& model, const Optimizer<float>& optimizer) override;
  void store(int run, Model<float>& model, Optimizer<float>& optimizer) const override;
  void set_plane(const Model<float>& centre, const Direction& X, const Direction& Y) override;
  void move_to(const std::vector<PlanePoint>& points) override;
  std::vector<StepsMade> train(const std::vector<Epoch>& epochs, int first, int count,
                               const std::atomic<bool>& stop) override;
  void take_snapshot() override;
  std::optional<std::vector<Evaluation>> evaluate_snapshot(Split split,
                                                           const std::atomic<bool>& stop) override;
  // Without logits, which stay in the kernel.
  std::vector<Gradients> gradients(const std::vector<Epoch>& epochs, int step) override;
  std::vector<AttentionInputs> attention_inputs(int, Split, int, int) override;

  // For tests and benchmarks.
  void set_patience(double seconds);  // default 30
  void set_blocks_a_run(int blocks);  // 0: as many as the device has room for
  void leave_out_a_block(bool out);   // one block does not come: the others must give up
  int blocks_a_run() const;           // that train() uses

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace focus::gpu
