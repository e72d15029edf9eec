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

#include "files/metrics.h"
#include "files/safetensors.h"
#include "model/model.h"
#include "tasks/dataset.h"
#include "train/optimizer.h"
#include "train/settings.h"

namespace focus {

// Training and held-out data, padded for the model; shared by the runs that use the same.
struct RunData {
  PaddedData train, val;
};
// Generates or reads the data of a run. Throws InputError for bad files or when k exceeds the
// length.
std::shared_ptr<const RunData> make_run_data(const RunSettings& settings, uint64_t seed);

struct Evaluation {
  double loss = 0, accuracy = 0;  // mean cross-entropy in nats; percent
};
// Loss and accuracy of a model on rows; no dropout. The predicted class is the one with the largest
// logit (the lowest of equal ones). `stop`, if given and set, ends it early: nullopt. `logits`, if
// given, receives rows × classes numbers.
std::optional<Evaluation> evaluate(Model<float>& model, Tape<float>& tape, const PaddedData& data,
                                   const std::atomic<bool>* stop = nullptr,
                                   std::vector<float>* logits = nullptr);

class Run {
 public:
  Run(const RunSettings& settings, uint64_t seed, std::shared_ptr<const RunData> data);

  // Trains to the end of the current epoch and evaluates. nullopt if `stop` was set on the way; the
  // run then stands between two steps and can be saved or continued. RunError on a NaN or Inf.
  std::optional<EpochMetrics> run_epoch(Tape<float>& tape, const std::atomic<bool>& stop);

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

  // For whoever takes the steps elsewhere (run_group.h): what the steps of this epoch need, …
  std::vector<int> epoch_order() const;  // of the training rows
  int steps_per_epoch() const;
  uint32_t noise_step() const;  // of the next step
  double rate() const;
  // … and what came of them. fail_at_step and finish_epoch throw RunError on a NaN or Inf.
  void took_steps(int steps);
  [[noreturn]] void fail_at_step(int step, double loss, double norm) const;
  EpochMetrics finish_epoch(const Evaluation& train, const Evaluation& val);

 private:
  void train_step(Tape<float>& tape, const std::vector<int>& order);

  RunSettings settings_;
  uint64_t seed_;
  std::shared_ptr<const RunData> data_;
  Model<float> model_;
  Optimizer<float> optimizer_;
  int epochs_done_ = 0, step_ = 0;
  double best_accuracy_ = -1, best_loss_ = 0;
  bool is_best_ = false;
  std::vector<int> tokens_, labels_;  // one batch
};

}  // namespace focus
