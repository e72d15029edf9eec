// Lesson 10: what does top-k save? README.md has the predictions' reasons and the rule of the
// verdict.
#include <algorithm>

#include "cuda/lesson/ladder_lesson.h"
#include "error.h"

using namespace focus;

namespace {

constexpr double most_growth = 1.05;  // the rule's: of lines per token, over lengths

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-10", "what does top-k save?");
  out.note("settings", "kernels of top-k attention, k = 5; predictions.csv");
  const std::vector<gpu::RungResult> results = gpu::rung_results(out);
  if (results.empty()) return out.interrupted();
  gpu::write_rung_table(out, results);
  out.figure(gpu::ladder_figure("Top-k: one product forward, k rows a token backward", results));
  const gpu::LadderVerdict verdict = gpu::judge_ladder(results);

  // The inverted index at several lengths: k pairs a token at each of them.
  double shortest = 0, longest = 0, atomics = 0;
  for (const gpu::RungResult& r : results)
    if (r.rung == 11) {
      if (shortest == 0) shortest = r.counted.lines;
      longest = r.counted.lines, atomics = std::max(atomics, r.atomics);
    }
  const double growth = longest / shortest;
  const bool flat = growth <= most_growth, none = atomics == 0;
  return out.verdict(
      verdict.holds && flat && none,
      str(verdict.words, "; 4. backward traffic per token does not grow with the length: ",
          flat ? "yes" : "NO", " (", growth, " times at 4 times the length); 5. rung 11 makes no ",
          "atomic additions to global memory: ", none ? "yes" : "NO"));
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
