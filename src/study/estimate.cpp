#include "study/estimate.h"

#include <algorithm>
#include <limits>
#include <map>

#include "clock.h"
#include "train/cpu_stepper.h"
#include "train/evaluate.h"
#include "train/run.h"

namespace focus {

namespace {

constexpr double enough_seconds = 0.15;

// The settings with a training set of a few batches, and without what does not cost time.
RunSettings miniature(RunSettings s) {
  s.train_size = std::min(s.train_size, s.length >= 200 ? s.batch : 4 * s.batch);
  s.val_size = 1;
  s.lr = 1e-3, s.lr_decay = 1, s.dropout = s.dropout > 0 ? 0.01 : 0;
  return s;
}

// Of what a few steps on `rows` rows and the evaluation of a row took.
double seconds_of_epoch(const RunSettings& s, double a_step, double a_row, const RunData& data) {
  const int train_rows = s.train_data.empty() ? s.train_size : data.train.rows;
  const int val_rows = s.val_data.empty() ? s.val_size : data.val.rows;
  return a_step * ((train_rows + s.batch - 1) / s.batch) + a_row * (train_rows + val_rows);
}

double measure(const RunSettings& settings) {
  RunSettings small = miniature(settings);
  // Here a step takes as long as its rows and blocks, of which a few of long sequences tell.
  if (small.length >= 200) {
    small.batch = small.train_size = std::min(small.batch, 4);
    small.blocks = std::min(small.blocks, 3);
  }
  const std::atomic<bool> never{false};
  Workers workers(1);
  Tape<float> tape(workers);
  const auto data = make_run_data(small, 1);
  const int rows = data->train.rows, steps = (rows + small.batch - 1) / small.batch;
  Run run(small, 1, data);
  run_epoch(run, tape, never);  // the first allocates
  // The fastest of several: the others were disturbed.
  double epoch = std::numeric_limits<double>::infinity(), evaluation = epoch;
  const double begin = seconds_now();
  do {
    const double t0 = seconds_now();
    run_epoch(run, tape, never);
    const double t1 = seconds_now();
    evaluate(run.model(), tape, data->train);
    epoch = std::min(epoch, t1 - t0);
    evaluation = std::min(evaluation, seconds_now() - t1);
  } while (seconds_now() - begin < enough_seconds);
  // The epoch evaluates the training set too, and one held-out row or a file of them.
  const double a_row = evaluation / rows;
  const double a_step = std::max(0.0, epoch - a_row * (rows + data->val.rows)) / steps;
  const double depth = double(settings.blocks) / small.blocks;
  return seconds_of_epoch(settings, a_step * settings.batch / small.batch * depth, a_row * depth,
                          *data);
}

// An epoch of so many runs together.
double measure(const RunSettings& settings, Device& device, int count) {
  const RunSettings small = miniature(settings);
  const std::atomic<bool> never{false};
  const auto data = make_run_data(small, 1);
  std::vector<StepRun> runs;
  std::vector<Epoch> epochs;
  const Run run(small, 1, data);
  for (int r = 0; r < count; ++r)
    runs.push_back({uint64_t(r), data}), epochs.push_back(run.epoch());
  const auto stepper = device.make_stepper(run.step_settings(), runs);
  for (int r = 0; r < count; ++r) run.load_into(*stepper, r);
  const int rows = data->train.rows, steps = run.steps_per_epoch();
  double training = std::numeric_limits<double>::infinity(), evaluation = training;
  const double begin = seconds_now();
  for (int n = 0; n < 3 || (n < 20 && seconds_now() - begin < enough_seconds); ++n) {
    const double t0 = seconds_now();
    stepper->train(epochs, 0, steps, never);
    const double t1 = seconds_now();
    stepper->evaluate(Split::train, never);
    if (n == 0) continue;  // kernels are loaded and recorded
    training = std::min(training, t1 - t0);
    evaluation = std::min(evaluation, seconds_now() - t1);
  }
  return seconds_of_epoch(settings, training / steps, evaluation / rows, *data);
}

// Alone, and each further one beside it: as many as a study may have together.
EpochCost measure(const RunSettings& settings, Device& device) {
  const double alone = measure(settings, device, 1);
  for (int count = 8; count > 1; count /= 2) try {
      const double together = measure(settings, device, count);
      return {alone, std::max(0.0, together - alone) / (count - 1)};
    } catch (const OutOfMemory&) {
      // Fewer may fit.
    }
  return {alone, alone};
}

}  // namespace

std::vector<EpochCost> measure_epochs(const Study& study, Device* device) {
  std::map<TextMap, EpochCost> known;
  std::vector<EpochCost> costs;
  for (const StudyVariant& variant : study.variants) {
    RunSettings s = variant.settings;
    s.lr = s.lr_decay = s.clip = s.score_scale = s.qk_scale = s.qk_rate = 1;
    s.dropout = s.dropout > 0, s.freeze_qk = false;
    s.epochs = 1, s.layer_norm_epsilon = s.first_layer_norm_epsilon = 0;
    const TextMap key = to_text(s);
    const auto found = known.find(key);
    if (found == known.end()) {
      if (device) {
        known[key] = measure(variant.settings, *device);
      } else {
        const double seconds = measure(variant.settings);
        known[key] = {seconds, seconds};
      }
    }
    costs.push_back(known[key]);
  }
  return costs;
}

}  // namespace focus
