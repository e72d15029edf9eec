// Lesson 09: what do tiles save? README.md has the predictions' reasons and
// the rule of the verdict.
#include "cuda/lesson/ladder_lesson.h"

using namespace focus;

namespace {

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-09", "what do tiles save?");
  out.note("settings", "tiled kernels of dense, banded and block attention; predictions.csv");
  const std::vector<gpu::RungResult> results = gpu::rung_results(out);
  if (results.empty()) return out.interrupted();
  gpu::write_rung_table(out, results);
  out.figure(gpu::ladder_figure("Tiles: fewer lines, then fewer cycles", results));
  const gpu::LadderVerdict verdict = gpu::judge_ladder(results);
  return out.verdict(verdict.holds, verdict.words);
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
