// Runs on random data, to compare what steppers make of them and to time the one launch.
#pragma once

#include <cmath>
#include <deque>
#include <memory>
#include <numeric>

#include "cuda/device/device.h"
#include "cuda/one_launch/one_launch.h"
#include "error.h"
#include "rng.h"
#include "train/cpu_stepper.h"

namespace focus::gpu {

// ‖got − wanted‖ / ‖wanted‖.
inline double relative_distance(const std::vector<float>& got, const std::vector<float>& wanted) {
  double error = 0, size = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    error += std::pow(double(got[i]) - double(wanted[i]), 2);
    size += std::pow(double(wanted[i]), 2);
  }
  return std::sqrt(error / size);
}

struct StepMade {
  double loss = 0;
  std::vector<float> gradients;  // before clipping
  std::vector<float> weights;    // after the update
};

// A run with random data of its own: `rows` sequences, taken `batch` at a time in a shuffled order.
class RandomRun {
 public:
  RandomRun(const StepSettings& settings, int rows, uint64_t seed)
      : model(settings.model), optimizer(settings.optimizer, model.parameters()) {
    const ModelSettings& s = settings.model;
    model.initialise(seed);
    RunData data;
    const bool text = s.objective != Objective::classify;
    data.train = {rows, s.length, s.vocabulary, {}, {}, text ? 1 : s.length};
    Rng rng(seed, Stream::data);
    for (int i = 0; i < (text ? rows + s.length : rows * s.length); ++i)
      data.train.tokens.push_back(TokenId(rng.below(uint32_t(s.vocabulary))));
    for (int i = 0; i < rows && !text; ++i)
      data.train.labels.push_back(int(rng.below(uint32_t(s.classes))));
    data.val = data.train;
    epoch.order.resize(size_t(rows)), epoch.rate = 0.1, epoch.steps_before = 40;
    std::iota(epoch.order.begin(), epoch.order.end(), 0);
    rng.shuffle(epoch.order);
    step_run = {seed, std::make_shared<const RunData>(std::move(data))};
  }

  std::vector<float> weights() const {
    std::vector<float> all;
    for (const Parameter<float>& p : model.parameters())
      all.insert(all.end(), p.value.begin(), p.value.end());
    return all;
  }
  void set_weights(const std::vector<float>& all) {
    const float* from = all.data();
    for (Parameter<float>& p : model.parameters()) {
      std::copy(from, from + p.value.size(), p.value.begin());
      from += p.value.size();
    }
  }

  Model<float> model;
  Optimizer<float> optimizer;
  Epoch epoch;
  StepRun step_run;
};

inline const std::atomic<bool> never_stop{false};

// Step number n of the run by the stepper's run number `number`, from the weights that the run has;
// the others make a step of their own. The run has the new weights and moments afterwards.
inline StepMade step_of(Stepper& stepper, RandomRun& run, int n, int number = 0) {
  stepper.load(number, run.model, run.optimizer);
  const std::vector<Epoch> epochs{run.epoch};
  const Gradients g = stepper.gradients(epochs, n).at(size_t(number));
  StepMade made{0, {}, {}};
  for (const std::vector<float>& of_one : g.parameters)
    made.gradients.insert(made.gradients.end(), of_one.begin(), of_one.end());
  const StepsMade steps = stepper.train(epochs, n, 1, never_stop).at(size_t(number));
  made.loss = steps.losses.empty() ? NAN : double(steps.losses.back());
  stepper.store(number, run.model, run.optimizer);
  made.weights = run.weights();
  return made;
}

// The one launch on random runs of the paper's short model: width 64, five blocks, batches of 25,
// vocabulary 17, 10 classes, dropout 0.01, SGD.
class RandomLaunch {
 public:
  static constexpr int batch = 25, steps = 40;  // of a call

  RandomLaunch(Precision precision, Pattern pattern, int k, int length, int runs) {
    StepSettings settings{.batch = batch, .precision = precision};
    ModelSettings& s = settings.model;
    s.attention = {pattern, k, 0, 1, 0.01};
    s.vocabulary = 17, s.classes = 10, s.length = length, s.dropout = 0.01;
    std::vector<StepRun> step_runs;
    for (int r = 0; r < runs; ++r) {
      const RandomRun& run = runs_.emplace_back(settings, batch * steps, uint64_t(r) + 1);
      step_runs.push_back(run.step_run), epochs_.push_back(run.epoch);
    }
    launch_ = std::make_unique<OneLaunch>(settings, step_runs);
    for (int r = 0; r < runs; ++r)
      launch_->load(r, runs_[size_t(r)].model, runs_[size_t(r)].optimizer);
  }

  // The milliseconds of a step of all runs, of `steps` in one call.
  double time_step() {
    Timer timer;
    timer.start();
    const auto made = launch_->train(epochs_, 0, steps, never_stop);
    const double ms = timer.stop() / steps;
    for (const StepsMade& one : made)
      if (one.failed) fail_run("a loss that is no number");
    return ms;
  }
  // The same of an evaluation of as many rows.
  double time_evaluation() {
    Timer timer;
    timer.start();
    launch_->evaluate(Split::train, never_stop);
    return timer.stop() / steps;
  }
  int blocks_a_run() const { return launch_->blocks_a_run(); }

 private:
  std::deque<RandomRun> runs_;
  std::vector<Epoch> epochs_;
  std::unique_ptr<OneLaunch> launch_;
};

}  // namespace focus::gpu
