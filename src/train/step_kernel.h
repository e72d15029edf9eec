// A kernel that makes whole training steps by itself, many in one launch.
//
// A device may have one for some models (Device::step_kernel). It takes the steps of an epoch, and
// its evaluations, in place of the recorded operations: the same steps but for rounding, of float32
// or of the precision that is asked for.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/precision.h"
#include "train/run.h"

namespace focus {

// One run; every pointer is to device memory. Parameters, gradients and moments are one array each,
// tensor after tensor in the order of Model::parameters(), which starts at a multiple of 16 bytes
// and whose size is rounded up to 4 numbers.
struct OneLaunchRun {
  float* parameters = nullptr;
  float* gradients = nullptr;        // out: of the last step, before clipping
  float *m = nullptr, *v = nullptr;  // Adam's moments
  const int* tokens = nullptr;       // (rows, length), checked by the caller: all in the vocabulary
  const int* labels = nullptr;       // (rows)
  const int* order = nullptr;        // (rows): the rows in this epoch's order; unused by evaluate()
  int rows = 0;
  uint64_t seed = 0;
  // This run's steps before the epoch; dropout and Adam count on from it.
  uint32_t steps_before = 0;
  double lr = 0.1, clip = 0.5;
  // Parameter::rate_factor for each number, the same for each four; or nullptr: all 1.
  const float* rate_factors = nullptr;
};

// What became of the steps of one run.
struct OneLaunchSteps {
  std::vector<float> losses;  // of the steps that were made
  std::vector<double> norms;  // their gradient norms, before clipping
  // The last of these steps met a NaN or an infinity: it changed no weight, and the run stopped.
  bool failed = false;
};

class StepKernel {
 public:
  virtual ~StepKernel() = default;
  // In which numbers the products of later steps and evaluations are made; fp32 unless set.
  // InputError, naming --precision, if the device cannot.
  virtual void set_precision(Precision precision) = 0;
  // Steps first_step … first_step+steps-1 of an epoch of ⌈rows / batch⌉ steps, the last of which
  // may be smaller. All runs have the same number of rows. Waits for the device. RunError if the
  // kernel hangs.
  virtual std::vector<OneLaunchSteps> train(const std::vector<OneLaunchRun>& runs, int first_step,
                                            int steps) = 0;
  // Loss and accuracy on all rows of each run, without dropout, as focus::evaluate.
  virtual std::vector<Evaluation> evaluate(const std::vector<OneLaunchRun>& runs) = 0;
};

}  // namespace focus
