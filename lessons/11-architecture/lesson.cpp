// Lesson 11: does top-k attention learn faster at every depth and with every number of heads?
// README.md has the mathematics and the rule of the verdict.
#include "report/lesson.h"

#include <algorithm>
#include <iostream>

#include "report/curves.h"
#include "study/lesson_study.h"
#include "study/paper_scale.h"
#include "study/rule.h"
#include "study/summary.h"

using namespace focus;

namespace {

// The rule's: topk's median epochs are at most this share of full's.
constexpr double most_of_full = 0.5;

void tell_paper_scale(Lesson& out, const Recording& recording) {
  tell_each_setting(out, recording,
                    "Depths and heads at the paper's scale: five best keys against all",
                    most_of_full);
}

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-11", "does focus help at other depths and with more heads?");
  if (out.options().paper_scale) {
    tell_paper_scale(out, *paper_recording(out));
    return 0;
  }
  const Study study = lesson_study(out);
  const std::optional<StudyResults> read = study_results(out, study);
  if (!read) return out.interrupted();
  const std::vector<std::string> shapes = read->rests();  // "blocks=2 heads=1", …

  // A panel for each shape, as in the paper's figures 3a and 3b.
  Figure figure{"Five best keys against all: other depths, more heads"};
  figure.columns = 3;
  for (const std::string& shape : shapes)
    figure.panels.push_back(
        curve_panel(read->with_rest(shape), &EpochMetrics::train_loss, shape, "training loss"));
  Interval range{0, 0};  // one for all panels, so that they can be compared
  for (const Panel& panel : figure.panels)
    range.second = std::max(range.second, y_interval(panel).second);
  for (Panel& panel : figure.panels) panel.y_range = range;
  const RunSettings& s = study.variants[0].settings;
  figure.caption = str(s.task, ", length ", s.length, ", ", s.train_size,
                       " training examples; medians and quartiles of ",
                       read->variants[0].seeds.size(), " seeds.");
  out.figure(figure);
  std::cout << summary_table(summarise(read->variants)) << "\n";
  if (const auto recording = paper_recording(out)) tell_paper_scale(out, *recording);

  int reproduced = 0;
  std::string words;
  for (const std::string& shape : shapes) {
    const Judgement j = judge_epochs(read->variant(str("topk(5) ", shape)),
                                     read->variant(str("full ", shape)), most_of_full);
    reproduced += j.reproduced;
    words += str(words.empty() ? "" : ". ", shape, ": ", j.words);
  }
  return out.verdict(reproduced == int(shapes.size()), words);
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
