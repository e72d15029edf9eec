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

double measure(const RunSettings& settings) {
  const RunSettings small = miniature(settings);
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
  const int train_rows = settings.train_data.empty() ? settings.train_size : rows;
  const int val_rows = settings.val_data.empty() ? settings.val_size : data->val.rows;
  return a_step * ((train_rows + settings.batch - 1) / settings.batch) +
         a_row * (train_rows + val_rows);
}

}  // namespace

std::vector<double> measure_epochs(const Study& study) {
  std::map<TextMap, double> known;
  std::vector<double> seconds;
  for (const StudyVariant& variant : study.variants) {
    RunSettings s = variant.settings;
    s.lr = s.lr_decay = s.clip = 1, s.dropout = s.dropout > 0, s.epochs = 1;
    s.layer_norm_epsilon = s.first_layer_norm_epsilon = 0;
    const TextMap key = to_text(s);
    const auto found = known.find(key);
    if (found == known.end()) known[key] = measure(variant.settings);
    seconds.push_back(known[key]);
  }
  return seconds;
}

}  // namespace focus
