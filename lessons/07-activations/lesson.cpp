// Lesson 07: does top-k attention learn faster whatever the activation of the feed-forward half?
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
constexpr double most_of_full = 0.75;

// What is recorded at the paper's scale: the rule on even pairs, as at laptop scale; beside it the
// other tasks that have been run with GELU, too.
void tell_paper_scale(Lesson& out, const Recording& all) {
  Recording recording = all;
  std::erase_if(recording.variants, [&](const RecordedVariant& v) {
    return !all.find(str("full ", v.settings.task, " gelu")) || v.settings.k == 9;
  });
  int reproduced = 0;
  std::string words;
  for (const char* a : {"relu", "gelu", "mish"}) {
    const Judgement j =
        judge_epochs(recording.at(str("topk(5) even-pairs ", a)).outcomes(),
                     recording.at(str("full even-pairs ", a)).outcomes(), most_of_full);
    reproduced += j.reproduced;
    words += str(words.empty() ? "" : ". ", a, ": ", j.words);
  }
  const std::string table = paper_table(recording);
  // In the figure two rows for each activation, a column for each task that was run with all three.
  std::erase_if(recording.variants, [&](const RecordedVariant& v) {
    return !all.find(str("topk(5) ", v.settings.task, " mish"));
  });
  std::stable_sort(recording.variants.begin(), recording.variants.end(),
                   [](const RecordedVariant& a, const RecordedVariant& b) {
                     return a.settings.activation < b.settings.activation;
                   });
  const auto is_first = [](const RecordedVariant& v) {
    return v.settings.activation == Activation::relu && v.settings.attention == Pattern::full;
  };
  const auto columns =
      std::count_if(recording.variants.begin(), recording.variants.end(), is_first);
  out.paper_scale(paper_figure(recording, {"full", "topk(5)"},
                               "Three activations at the paper's scale: five best keys against all",
                               int(columns)),
                  table, reproduced == 3, words);
}

Judgement show(Lesson& out, const Study& study, const StudyResults& results) {
  const std::vector<std::string> activations = results.rests();  // "relu", "gelu", "mish"

  // A column for each activation, as in the paper's figure 2.
  Figure figure{"Even pairs: five best keys against all, with three activations"};
  figure.columns = int(activations.size());
  for (const std::string& a : activations)
    figure.panels.push_back(curve_panel(results.with_rest(a), &EpochMetrics::train_loss,
                                        str(a, ", training"), "cross-entropy"));
  for (const std::string& a : activations)
    figure.panels.push_back(curve_panel(results.with_rest(a), &EpochMetrics::val_accuracy,
                                        str(a, ", held-out"), "accuracy, %"));
  const RunSettings& s = study.variants[0].settings;
  figure.caption =
      str("Length ", s.length, ", ", s.train_size, " training examples; medians and quartiles of ",
          results.variants[0].seeds.size(), " seeds.");
  out.figure(figure);
  std::cout << summary_table(summarise(results.variants)) << "\n";

  const Judgements each = judge_each_setting(results, most_of_full);
  return {each.reproduced == activations.size(), each.words};
}

}  // namespace

int main(int argc, char** argv) {
  return judge_at_both_scales(argc, argv, "lesson-07",
                              "does focus help with GELU and Mish as with ReLU?", show,
                              tell_paper_scale);
}
