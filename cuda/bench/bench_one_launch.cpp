// focus bench one-launch: how long a training step takes when one kernel does all of it, and how
// long even pairs takes from the first step to the last evaluation.
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <string>

#include "cli/command.h"
#include "clock.h"
#include "cuda/bench/measure.h"
#include "cuda/device/device.h"
#include "cuda/one_launch/one_launch.h"
#include "error.h"
#include "report/statistics.h"
#include "rng.h"
#include "train/seeds.h"

namespace focus {

namespace {

using namespace gpu;

// A run's memory on the device, with freshly initialised weights.
struct DeviceRun {
  DeviceArray<float> parameters, gradients;
  DeviceArray<int> train_tokens, train_labels, val_tokens, val_labels, order;
  OneLaunchRun train, val;

  DeviceRun(const ModelSettings& s, uint64_t seed, const PaddedData& train_data,
            const PaddedData& val_data)
      : parameters(padded_parameters(s)),
        gradients(padded_parameters(s)),
        train_tokens(std::vector<int>(train_data.tokens.begin(), train_data.tokens.end())),
        train_labels(std::vector<int>(train_data.labels.begin(), train_data.labels.end())),
        val_tokens(std::vector<int>(val_data.tokens.begin(), val_data.tokens.end())),
        val_labels(std::vector<int>(val_data.labels.begin(), val_data.labels.end())),
        order(size_t(train_data.rows)) {
    Model<float> model(s);
    model.initialise(seed);
    std::vector<float> weights;
    for (const Parameter<float>& p : model.parameters())
      weights.insert(weights.end(), p.value.begin(), p.value.end());
    weights.resize(parameters.size());
    parameters.set(weights);
    train = {.parameters = parameters.data(),
             .gradients = gradients.data(),
             .tokens = train_tokens.data(),
             .labels = train_labels.data(),
             .order = order.data(),
             .rows = train_data.rows,
             .seed = seed};
    val = train;
    val.tokens = val_tokens.data(), val.labels = val_labels.data(), val.rows = val_data.rows;
    start_epoch(0, 1, 25);
  }

  // As Run::run_epoch.
  void start_epoch(int epoch, double decay, int batch) {
    std::vector<int> rows(order.size());
    std::iota(rows.begin(), rows.end(), 0);
    Rng(train.seed, Stream::order, uint32_t(epoch)).shuffle(rows);
    order.set(rows);
    train.steps_before = uint32_t(epoch) * uint32_t((train.rows + batch - 1) / batch);
    train.lr = 0.1 * std::pow(decay, epoch);
  }
};

PaddedData random_data(const ModelSettings& s, int rows, uint64_t seed) {
  PaddedData data;
  data.rows = rows, data.length = s.length;
  Rng rng(seed, Stream::data);
  for (int i = 0; i < rows * s.length; ++i)
    data.tokens.push_back(uint8_t(rng.below(uint32_t(s.vocabulary))));
  for (int i = 0; i < rows; ++i) data.labels.push_back(int(rng.below(uint32_t(s.classes))));
  return data;
}

// The defaults of focus bench step: batch 25, vocabulary 17, 10 classes, dropout 0.01, SGD.
void bench_steps(Precision precision, Pattern pattern, int k, int length, int runs, int repeats) {
  ModelSettings s;
  s.attention = {pattern, k, 0, 1, 0.01};
  s.vocabulary = 17, s.classes = 10, s.length = length, s.dropout = 0.01;
  constexpr int batch = 25, steps = 40;
  std::vector<DeviceRun> memory;
  std::vector<OneLaunchRun> all;
  for (int r = 0; r < runs; ++r) {
    const PaddedData data = random_data(s, batch * steps, uint64_t(r) + 1);
    memory.emplace_back(s, uint64_t(r) + 1, data, data);
    all.push_back(memory.back().train);
  }
  OneLaunch launch(s, OptimizerKind::sgd, batch, runs, precision);
  std::vector<double> ms, evaluation;
  Timer timer;
  for (int i = -2; i < repeats; ++i) {
    timer.start();
    const auto results = launch.train(all, 0, steps);
    const double step = timer.stop() / steps;
    timer.start();
    launch.evaluate(all);
    const double rows = timer.stop() / steps;
    for (const OneLaunchSteps& one : results)
      if (one.failed) fail_run("bench one-launch: a NaN loss");
    if (i >= 0) ms.push_back(step), evaluation.push_back(rows);
  }
  char text[200];
  std::snprintf(text, sizeof text, "%-9s %-8s %2d %6d %5d %6d %10.4f %9.4f-%-9.4f %10.4f\n",
                name_of(precision), name_of(pattern), k, length, runs, launch.blocks_a_run(runs),
                median(ms), quantile(ms, 0.25), quantile(ms, 0.75), median(evaluation));
  print(text);
}

// Even pairs as in the paper, several seeds together, with an evaluation after each epoch.
void train_even_pairs(Precision precision, Pattern pattern, int k, int seeds, int epochs) {
  RunSettings settings = RunSettings::defaults_for(find_task("even-pairs"));
  settings.attention = pattern, settings.k = k;
  std::vector<DeviceRun> memory;
  ModelSettings s;
  for (const uint64_t seed : choose_seeds(seeds, nullptr)) {
    const auto data = make_run_data(settings, seed);
    s = settings.model_settings(data->train.vocabulary, data->train.length);
    memory.emplace_back(s, seed, data->train, data->val);
  }
  const int batch = settings.batch, rows = settings.train_size;
  OneLaunch launch(s, OptimizerKind::sgd, batch, seeds, precision);
  std::vector<double> reached(size_t(seeds), double(epochs + 1)), accuracy;
  const double start = seconds_now();
  double training = 0;
  for (int epoch = 0; epoch < epochs; ++epoch) {
    std::vector<OneLaunchRun> train, val;
    for (DeviceRun& run : memory) {
      run.start_epoch(epoch, settings.lr_decay, batch);
      train.push_back(run.train), val.push_back(run.val);
    }
    const double before = seconds_now();
    launch.train(train, 0, (rows + batch - 1) / batch);
    training += seconds_now() - before;
    const auto metrics = launch.evaluate(train), held_out = launch.evaluate(val);
    accuracy.clear();
    for (size_t r = 0; r < memory.size(); ++r) {
      accuracy.push_back(held_out[r].accuracy);
      if (metrics[r].accuracy >= 95) reached[r] = std::min(reached[r], double(epoch + 1));
    }
  }
  char text[300];
  std::snprintf(
      text, sizeof text,
      "even pairs, %s, %s(%d), %d seeds, %d epochs: %.2f s, of which %.2f s training; epochs "
      "to 95%%: median %.1f, quartiles %.1f %.1f; held-out accuracy at the end: median "
      "%.1f%%\n",
      name_of(precision), name_of(pattern), k, seeds, epochs, seconds_now() - start, training,
      median(reached), quantile(reached, 0.25), quantile(reached, 0.75), median(accuracy));
  print(text);
}

int bench_one_launch_command(const Arguments& arguments) {
  need_device("bench one-launch");
  const int repeats = int(arguments.whole("repeats", 1, 1000));
  const int epochs = int(arguments.whole("even-pairs", 0, 1000));
  const Precision precision = precision_of(arguments.text("precision"));
  print(str(device().name, ": ms a step of all runs (median, quartiles), of forward alone in ",
            "evaluation\nprecision pattern   k length  runs blocks    ms a step      quartiles     "
            "evaluation\n"));
  for (const int runs : {1, 2, 5, 10, 20}) {
    bench_steps(precision, Pattern::full, 0, 40, runs, repeats);
    bench_steps(precision, Pattern::topk, 5, 40, runs, repeats);
  }
  bench_steps(precision, Pattern::banded, 5, 40, 10, repeats);
  bench_steps(precision, Pattern::topk, 9, 45, 1, repeats);
  bench_steps(precision, Pattern::topk, 9, 45, 10, repeats);
  if (epochs > 0) {
    train_even_pairs(precision, Pattern::full, 0, 10, epochs);
    train_even_pairs(precision, Pattern::topk, 5, 10, epochs);
  }
  return 0;
}

}  // namespace

std::vector<Command> bench_one_launch_commands() {
  Command c{"bench one-launch", "time training steps that one kernel makes from begin to end"};
  c.flags = {{"repeats", "N", "launches to time, of 40 steps each", "10"},
             {"precision", "NAME", "of the products: fp32, 3xtf32, tf32 or bf16", "fp32"},
             {"even-pairs", "N", "then even pairs for N epochs, ten seeds", "0"}};
  c.more = "Example: focus bench one-launch --even-pairs 100";
  c.run = bench_one_launch_command;
  return {c};
}

}  // namespace focus
