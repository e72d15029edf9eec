// Lesson 11: does top-k attention learn faster at every depth and with every number of heads?
// README.md has the mathematics and the rule of the verdict.
#include "report/lesson.h"

#include <algorithm>
#include <iostream>

#include "report/curves.h"
#include "study/paper_scale.h"
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

Judgement show(Lesson& out, const Study& study, const StudyResults& results) {
  const std::vector<std::string> shapes = results.rests();  // "blocks=2 heads=1", …

  // A panel for each shape, as in the paper's figures 3a and 3b.
  Figure figure{"Five best keys against all: other depths, more heads"};
  figure.columns = 3;
  for (const std::string& shape : shapes)
    figure.panels.push_back(
        curve_panel(results.with_rest(shape), &EpochMetrics::train_loss, shape, "training loss"));
  Interval range{0, 0};  // one for all panels, so that they can be compared
  for (const Panel& panel : figure.panels)
    range.second = std::max(range.second, y_interval(panel).second);
  for (Panel& panel : figure.panels) panel.y_range = range;
  const RunSettings& s = study.variants[0].settings;
  figure.caption = str(s.task, ", length ", s.length, ", ", s.train_size,
                       " training examples; medians and quartiles of ",
                       results.variants[0].seeds.size(), " seeds.");
  out.figure(figure);
  std::cout << summary_table(summarise(results.variants)) << "\n";

  const Judgements each = judge_each_setting(results, most_of_full);
  return {each.reproduced == shapes.size(), each.words};
}

}  // namespace

int main(int argc, char** argv) {
  return judge_at_both_scales(argc, argv, "lesson-11",
                              "does focus help at other depths and with more heads?", show,
                              tell_paper_scale);
}
