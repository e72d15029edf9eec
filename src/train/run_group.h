// Several runs that advance together on a device, step by step: one batch of each goes through
// every kernel, so ten small models cost little more than one.
//
// The data, the weights and the optimiser's state are on the device; a step is recorded once and
// then repeated without the host. Once an epoch its order goes to the device, and the losses, the
// weights and the optimiser's state come back into the runs, which save themselves as on the CPU.
// A model that the device has a step kernel for needs no recorded steps: the kernel makes them.
#pragma once

#include "tensor/device_buffer.h"
#include "train/placed_model.h"
#include "train/scheduler.h"
#include "train/step_kernel.h"

namespace focus {

class RunGroup {
 public:
  // The runs have the same settings and sizes of data, and stand at the same step. InputError if
  // the device has too little memory. by_kernel: the device's step kernel makes the steps, which
  // must be one for this model.
  RunGroup(Device<float>& device, std::vector<Run*> runs, bool by_kernel);

  // Trains all runs to the end of their epoch and evaluates them: rows[r] := what run r reached. If
  // `stop` is set on the way, all stand between two steps, no rows are set and false is returned.
  // RunError on a NaN or Inf, with the run in failed(): if in a step, before anything has come back
  // to any run; if in an evaluation, the runs that have a row have finished their epoch.
  bool run_epoch(const std::atomic<bool>& stop, std::vector<std::optional<EpochMetrics>>& rows);
  size_t failed() const { return failed_; }

  const std::vector<Run*>& runs() const { return runs_; }

 private:
  // One part of the data, on the device.
  struct Part {
    std::vector<DeviceBuffer<int>> tokens, labels;
    std::vector<const int*> run_tokens, run_labels;       // one for each run
    DeviceBuffer<const int*> token_arrays, label_arrays;  // the same, on the device
    int rows = 0, length = 0, batch = 0;                  // batch: rows of each run at a time
    std::unique_ptr<Device<float>::Recorded> full, last;  // a whole batch, and what is left over
  };
  Part place(const PaddedData& (*part)(const Run&), int batch);
  Device<float>::Source source(const Part& part, const int* order) const;

  void record_steps();
  void train_step(int batch);
  void evaluate_step(Part& part, int batch);
  void warm_up();
  void send_order();
  bool evaluate(Part& part, const std::atomic<bool>& stop, std::vector<Evaluation>& results);
  std::vector<OneLaunchRun> kernel_runs(const Part& part) const;
  int steps_by_kernel(int begin, int end, const std::atomic<bool>& stop);
  int recorded_steps(int begin, int end, const std::atomic<bool>& stop);
  void fail_on_bad_steps();
  void bring_back(int steps);
  template <class F>
  void for_moments(const F& f);

  Device<float>& device_;
  std::vector<Run*> runs_;
  size_t failed_ = 0;
  PlacedModel model_;
  std::unique_ptr<StepKernel> kernel_;  // nullptr: the steps are recorded
  Workers workers_{1};
  Tape<float> tape_;
  Part train_, train_rows_, val_rows_;  // to train on; to evaluate
  DeviceBuffer<int> order_, tokens_, labels_;
  DeviceBuffer<float> rates_, m_, v_, loss_;
  DeviceBuffer<double> row_loss_;
  DeviceBuffer<uint8_t> row_right_;
};

// Why the device's step kernel cannot make the steps of such a run; "" if it can.
std::string step_kernel_problem(const Device<float>& device, Run& run);

// run_side_by_side() for a device (scheduler.h): group after group, all runs of a group that stand
// at the same step together, up to `at_once` of them. use_kernel: the device's step kernel makes
// the steps of the models that it is made for. What a run computes does not depend on its company.
void run_together(Device<float>& device, const std::vector<Job>& jobs, int at_once, bool use_kernel,
                  const std::atomic<bool>& stop, const JobEvents& events);

// The same for runs of one group that exist already and remain. A failure of one ends all.
void run_together(Device<float>& device, std::deque<Run>& runs, int epochs, bool use_kernel,
                  const std::atomic<bool>& stop, const AfterEpoch& after);

}  // namespace focus
