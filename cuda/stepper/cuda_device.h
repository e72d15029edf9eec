// The GPU as the trainer sees it, and the choice among its steppers.
#pragma once

#include "train/stepper.h"

namespace focus::gpu {

// Forms of a step (StepSettings::form):
//   auto        one launch where there is one for the model, else off
//   off         as fused where the blocks fit, else as graph
//   operations  a kernel or several for each operation, each started by the host
//   graph       the same, recorded once and repeated as a graph
//   fused       recorded, with most of a block in two kernels
//   one         one launch makes whole steps, many of them
class CudaDevice : public Device {
 public:
  // One GPU, from 0. InputError if there is none.
  explicit CudaDevice(int number = 0);

  std::string name() const override { return "cuda"; }
  std::string hardware() const override;
  std::string problem(const StepSettings& settings) const override;
  std::string explain(const StepSettings& settings) const override;
  std::unique_ptr<Stepper> make_stepper(const StepSettings& settings,
                                        std::vector<StepRun> runs) override;
  Facts facts() const override;
  std::vector<KernelTime> time_kernels(const std::function<void()>& work) override;

 private:
  int number_;
};

// Makes `--device cuda` known.
void register_device();

}  // namespace focus::gpu
