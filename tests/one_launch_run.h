// Models for one launch, and runs of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <deque>

#include "cuda/device/device.h"
#include "cuda/lesson/random_run.h"

namespace focus::test {

using gpu::never_stop;
using gpu::RandomRun;
using gpu::relative_distance;
using gpu::StepMade;

inline ModelSettings model_of(Pattern pattern, int k, int length, int blocks, double dropout) {
  ModelSettings s;
  s.attention = {pattern, k, is_positional(pattern) ? 1 : 0, 1, dropout};
  s.vocabulary = 7, s.classes = 5, s.length = length, s.blocks = blocks, s.dropout = dropout;
  return s;
}

// Kernels are slow where they are emulated: fewer rows and cases of them.
inline int few(int emulated, int on_a_gpu) {
  return gpu::emulated() ? emulated : on_a_gpu;
}

// Runs with these seeds, and what a stepper needs of them.
struct RandomRuns {
  std::deque<RandomRun> all;
  std::vector<StepRun> step_runs;
  std::vector<Epoch> epochs;

  RandomRuns(const StepSettings& settings, int rows, uint64_t first_seed, int count) {
    for (uint64_t seed = first_seed; seed < first_seed + uint64_t(count); ++seed) {
      const RandomRun& run = all.emplace_back(settings, rows, seed);
      step_runs.push_back(run.step_run), epochs.push_back(run.epoch);
    }
  }
  void load(Stepper& stepper) const {
    for (size_t r = 0; r < all.size(); ++r) stepper.load(int(r), all[r].model, all[r].optimizer);
  }
};

inline std::vector<float> flat(const std::vector<std::vector<float>>& tensors) {
  std::vector<float> all;
  for (const std::vector<float>& one : tensors) all.insert(all.end(), one.begin(), one.end());
  return all;
}

// A run's weights after steps 0 … in several calls, alone or beside runs with the seeds after its
// own. blocks: of one launch for each run, 0: its own choice.
inline std::vector<float> weights_after(const StepSettings& settings, int rows, int runs,
                                        uint64_t seed, int blocks,
                                        const std::vector<int>& launches) {
  RandomRuns these(settings, rows, seed, runs);
  gpu::OneLaunch launch(settings, these.step_runs);
  these.load(launch);
  launch.set_blocks_a_run(blocks);
  int first = 0;
  for (int steps : launches) {
    gpu::shuffle_threads(uint64_t(first + runs));
    launch.train(these.epochs, first, steps, never_stop), first += steps;
  }
  gpu::shuffle_threads(0);
  launch.store(0, these.all[0].model, these.all[0].optimizer);
  return these.all[0].weights();
}

}  // namespace focus::test
