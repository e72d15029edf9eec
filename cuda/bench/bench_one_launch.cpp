// focus bench one-launch: how long a training step takes when one kernel does all of it, and how
// long even pairs takes from the first step to the last evaluation.
#include <algorithm>
#include <cstdio>
#include <deque>
#include <string>

#include "cli/command.h"
#include "clock.h"
#include "cuda/bench/measure.h"
#include "cuda/device/device.h"
#include "cuda/lesson/random_run.h"
#include "error.h"
#include "report/statistics.h"
#include "train/run.h"
#include "train/seeds.h"

namespace focus {

namespace {

using namespace gpu;

void bench_steps(Precision precision, Pattern pattern, int k, int length, int runs, int repeats) {
  RandomLaunch launch(precision, pattern, k, length, runs);
  std::vector<double> ms, evaluation;
  for (int i = -2; i < repeats; ++i) {  // two to warm up
    const double step = launch.time_step(), rows = launch.time_evaluation();
    if (i >= 0) ms.push_back(step), evaluation.push_back(rows);
  }
  char text[200];
  std::snprintf(text, sizeof text, "%-9s %-8s %2d %6d %5d %6d %10.4f %9.4f-%-9.4f %10.4f\n",
                name_of(precision), name_of(pattern), k, length, runs, launch.blocks_a_run(),
                median(ms), quantile(ms, 0.25), quantile(ms, 0.75), median(evaluation));
  print(text);
}

// Even pairs as in the paper, several seeds together, with an evaluation after each epoch.
void train_even_pairs(Precision precision, Pattern pattern, int k, int seeds, int epochs) {
  RunSettings settings = RunSettings::defaults_for(find_task("even-pairs"));
  settings.attention = pattern, settings.k = k, settings.precision = precision;
  std::deque<Run> memory;
  std::vector<Run*> runs;
  std::vector<StepRun> step_runs;
  for (const uint64_t seed : choose_seeds(seeds, nullptr)) {
    runs.push_back(&memory.emplace_back(settings, seed, make_run_data(settings, seed)));
    step_runs.push_back(runs.back()->step_run());
  }
  OneLaunch launch(runs[0]->step_settings(), step_runs);
  for (size_t r = 0; r < runs.size(); ++r) runs[r]->load_into(launch, int(r));
  std::vector<double> reached(runs.size(), double(epochs + 1)), accuracy(runs.size());
  const double start = seconds_now();
  for (int epoch = 0; epoch < epochs; ++epoch) {
    const std::vector<EpochResult> results = run_epoch(launch, runs, never_stop);
    for (size_t r = 0; r < runs.size(); ++r) {
      if (results[r].error) throw *results[r].error;
      accuracy[r] = results[r].row->val_accuracy;
      if (results[r].row->train_accuracy >= 95)
        reached[r] = std::min(reached[r], double(epoch + 1));
    }
  }
  char text[300];
  std::snprintf(text, sizeof text,
                "even pairs, %s, %s(%d), %d seeds, %d epochs: %.2f s; epochs to 95%%: median %.1f, "
                "quartiles %.1f %.1f; held-out accuracy at the end: median %.1f%%\n",
                name_of(precision), name_of(pattern), k, seeds, epochs, seconds_now() - start,
                median(reached), quantile(reached, 0.25), quantile(reached, 0.75),
                median(accuracy));
  print(text);
}

struct Options {
  int repeats = 10, even_pairs = 0;
  Precision precision = Precision::fp32;
};

int bench_one_launch(const Options& o) {
  need_device("bench one-launch");
  const auto [repeats, epochs, precision] = o;
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

void add_bench_one_launch(CLI::App& bench) {
  const auto [app, o] =
      add_command(bench, "one-launch",
                  "time training steps that one kernel makes from begin to end", bench_one_launch);
  add_whole(app, "--repeats", o.repeats, 1, 1000, "launches to time, of 40 steps each");
  add_name(app, "--precision", o.precision, precision_of,
           "of the products: fp32, 3xtf32, tf32 or bf16");
  add_whole(app, "--even-pairs", o.even_pairs, 0, 1000, "then even pairs for N epochs, ten seeds");
  add_footer(app, "Example: focus bench one-launch --even-pairs 100");
}

}  // namespace focus
