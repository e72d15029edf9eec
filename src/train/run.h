// One training run: one seed's model, optimiser and data order.
//
// Every random number follows from (seed, epoch) or (seed, step), so the state of a run is its
// weights, the optimiser's moments and two counters: what a checkpoint holds is all there is, and a
// resumed run continues to the same bytes.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "error.h"
#include "files/metrics.h"
#include "files/safetensors.h"
#include "train/settings.h"
#include "train/stepper.h"

namespace focus {

// Generates or reads the data of a run. Throws InputError for bad files or when k exceeds the
// length.
std::shared_ptr<const RunData> make_run_data(const RunSettings& settings, uint64_t seed);

class Run {
 public:
  Run(const RunSettings& settings, uint64_t seed, std::shared_ptr<const RunData> data);

  // A checkpoint: settings, weights, optimiser, counters. restore() takes them back.
  Safetensors checkpoint() const;
  void restore(const Safetensors& file);

  uint64_t seed() const { return seed_; }
  int epochs_done() const { return epochs_done_; }
  int steps_in_epoch() const { return step_; }  // of the epoch that is under way
  bool is_best() const { return is_best_; }     // the last epoch had the best held-out accuracy yet
  Model<float>& model() { return model_; }
  const RunSettings& settings() const { return settings_; }
  Optimizer<float>& optimizer() { return optimizer_; }
  const RunData& data() const { return *data_; }

  // What a stepper needs: for its making, of this run and of its present epoch, or one so many
  // later.
  StepSettings step_settings() const;
  StepRun step_run() const { return {seed_, data_}; }
  Epoch epoch(int later = 0) const;
  int steps_per_epoch() const;
  void load_into(Stepper& stepper, int number) const { stepper.load(number, model_, optimizer_); }

  // What came of it: the state after so many steps more, …
  void take_steps(const Stepper& stepper, int number, int steps);
  // … a step that failed, or the end of the epoch. Both throw RunError on a NaN or Inf.
  [[noreturn]] void fail_at_step(int step, double loss, double norm) const;
  EpochMetrics finish_epoch(const Evaluation& train, const Evaluation& val);

 private:
  RunSettings settings_;
  uint64_t seed_;
  std::shared_ptr<const RunData> data_;
  Model<float> model_;
  Optimizer<float> optimizer_;
  int epochs_done_ = 0, step_ = 0;
  double best_accuracy_ = -1, best_loss_ = 0;
  bool is_best_ = false;
};

// What became of a run's epoch; neither: it was stopped.
struct EpochResult {
  std::optional<EpochMetrics> row;
  std::optional<RunError> error;  // NaN or Inf; the run is what it was after the last good steps
};

// Trains runs that stand at the same step to the end of their epoch and evaluates them: run r is
// the stepper's number r, which has its state. If `stop` is set on the way, the runs stand between
// two steps and can be saved or continued. A run that fails does not end the others.
std::vector<EpochResult> run_epoch(Stepper& stepper, const std::vector<Run*>& runs,
                                   const std::atomic<bool>& stop);

// The parts of that. The steps that are left of the epoch, …
std::vector<StepsMade> make_steps(Stepper& stepper, const std::vector<Run*>& runs,
                                  const std::atomic<bool>& stop);
// … which the runs take over with the stepper's states; results of those that failed.
std::vector<EpochResult> take_steps(const Stepper& stepper, const std::vector<Run*>& runs,
                                    const std::vector<StepsMade>& made);
// Have those that did not fail, if any, made all steps of the epoch?
bool can_evaluate(const std::vector<Run*>& runs, const std::vector<EpochResult>& results);
// Ends the epoch of those that did not fail with the evaluation of the stepper's snapshot.
void evaluate_epoch(Stepper& stepper, const std::vector<Run*>& runs,
                    std::vector<EpochResult>& results, const std::atomic<bool>& stop);

// One epoch of one run on the CPU. nullopt: `stop` was set on the way. RunError on a NaN or Inf.
std::optional<EpochMetrics> run_epoch(Run& run, Tape<float>& tape, const std::atomic<bool>& stop);

}  // namespace focus
