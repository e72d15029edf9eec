// Lesson 08: what do the first kernels ask of memory? README.md has the predictions' reasons and
// the rule of the verdict.
#include "cuda/lesson/ladder_lesson.h"

using namespace focus;

namespace {

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-08", "what do the first kernels ask of memory?");
  out.note("settings", "the plainest kernels of dense attention; predictions.csv");
  const std::vector<gpu::RungResult> results = gpu::rung_results(out);
  if (results.empty()) return out.interrupted();
  gpu::write_rung_table(out, results);
  out.figure(gpu::ladder_figure("Rung 01: what a warp asks of memory", results));
  const gpu::LadderVerdict verdict = gpu::judge_ladder(results);
  return out.verdict(verdict.holds, verdict.words);
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
