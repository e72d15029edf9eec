// What the kernels' lessons share: rungs of attention's ladder are run on the CPU, their traffic is
// counted (cuda/simt/count.h) and held against what was predicted by hand, and what an H200 took
// for them is looked up in what was recorded.
#pragma once

#include <string>
#include <vector>

#include "cuda/bench/measure.h"
#include "report/lesson.h"

namespace focus::gpu {

// Per pair of a query and a key that it is multiplied with: dense T² a head, top-k forward too,
// backward T·k, banded and block T·width.
struct PerPair {
  double lines = 0;  // of global memory, 128 bytes, one for each line that a warp's request touches
  double cycles = 0;  // of shared memory
};

// One line of predictions.csv, and what came. A prediction below 0 was not made.
struct RungResult {
  int rung = 0;
  std::string pass, pattern;
  BenchSize size;
  PerPair predicted, counted;
  double atomics = 0;              // requests to global memory, per pair
  double operations_per_byte = 0;  // useful operations for each byte of lines and cycles
  double error = 0;                // against the engine in double
  double h200_ms = 0, h200_tflops = 0, h200_percent = 0;  // of its roof; at length 2048
  std::string predicted_ms;                               // empty if nothing was predicted

  std::string name() const;  // "01 forward", "13 banded forward"
};

// Runs and counts what lessons/NN-*/predictions.csv names, and writes results.csv; at --redraw only
// reads the recorded one. Empty if stopped.
std::vector<RungResult> rung_results(Lesson& out);

// rungs.md: a row each, for the lesson's page.
void write_rung_table(Lesson& out, const std::vector<RungResult>& results);

// Two panels: what was predicted against what was counted; the H200's times under the roof that the
// counted traffic sets.
Figure ladder_figure(const std::string& title, const std::vector<RungResult>& results);

// The rule that the three lessons share. words: one part for each of its points.
struct LadderVerdict {
  bool holds = false;
  std::string words;
};
LadderVerdict judge_ladder(const std::vector<RungResult>& results);

}  // namespace focus::gpu
