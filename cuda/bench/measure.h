// Times one rung of attention's ladder, and checks it before and after.
#pragma once

#include <cstdint>
#include <string>

#include "cuda/attention/attention.h"
#include "cuda/device/device.h"

namespace focus::gpu {

struct BenchSize {
  int B = 16, H = 16, T = 2048, D = 64;
  int kept = 5, global_tokens = 0;
  Precision precision = Precision::fp32;  // of the rungs that have all products on tensor cores
  double dropout = 0;                     // on full attention's weights, in what is timed
};

// InputError, with the command's name, if kernels cannot be timed here: an emulated build, no GPU.
void need_device(const char* command);
// "NVIDIA H200, 132 multiprocessors, …": the device, driver and CUDA in one line.
std::string device_text();

// Floating-point operations, two for each multiply-add: those that the result needs (`useful`; a
// sparse backward needs none for dropped scores), and those that dense attention would do. `bytes`:
// each input read once, each output written once.
struct Work {
  double useful, dense, bytes;
};
Work work_of(Pattern pattern, Pass pass, const BenchSize& size);

// What the device can do: float32 operations a second at its highest clock, by its data sheet, and
// bytes a second of a large copy, read plus written, measured here.
struct Roof {
  double operations, bytes;
};
Roof measure_roof();

struct Measurement {
  int rung;
  double cold, quartile1, quartile3;  // ms, with an empty second-level cache: median, quartiles
  double warm;                        // ms, called again and again: median
  int runs;
  double error;  // the largest relative error of what the rung writes, against float64
};

// Inputs, outputs and their memory for one pattern and size; forward has run when it is made.
class AttentionBench {
 public:
  AttentionBench(Pattern pattern, const BenchSize& size);

  // RunError if a result differs from float64's by more than its precision allows (1e-5 in
  // float32), before or after timing. Both checks are without dropout.
  Measurement measure(Pass pass, const Rung& rung, int runs);
  // The ms that selection takes in a top-k forward rung, warm: the difference to inputs for which
  // the first k keys are every query's best, so that no other key enters a list. Both times include
  // comparing each score with the list's last.
  double selection_ms(const Rung& rung, int runs);

  // Its parts. Inputs of number `which`, with exact_scores such that float32 chooses the same keys
  // as float64; the relative error of one run on them (RunError beyond its limit); one run.
  void set_inputs(uint32_t which, bool exact_scores);
  double check(Pass pass, const Rung& rung, uint32_t which);
  void run(Pass pass, const Rung& rung);
  double warm_ms(Pass pass, const Rung& rung, int runs);
  // The call that is timed, for a rung to say whether it supports it.
  const Call& call() const { return call_; }

 private:
  void forward_for(const Rung& rung);
  Pattern pattern_;
  BenchSize size_;
  DeviceArray<float> q_, k_, v_, d_o_, o_, dq_, dk_, dv_, lse_, p_, workspace_, flush_, scores_;
  DeviceArray<int> keys_;
  DeviceArray<unsigned> keep_, copies_;
  KeepBits kept_;  // dropout's, while it is timed
  Call call_;
};

}  // namespace focus::gpu
