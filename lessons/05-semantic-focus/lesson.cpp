// Lesson 05: in how many epochs does top-k attention learn what takes full attention many?
// README.md has the mathematics and the rule of the verdict.
#include "report/lesson.h"

#include <iostream>

#include "report/curves.h"
#include "report/statistics.h"
#include "study/paper_scale.h"

using namespace focus;

namespace {

constexpr double learned = 95;  // percent of the training set

// Multiply-adds of the attention of one sequence and head, without the linear layers: forward the
// scores and the weighted values, backward the gradients of weights, values, queries and keys.
double multiply_adds(const RunSettings& s, double length) {
  const double all = length * length * s.d_model, kept = length * s.k * s.d_model;
  return s.attention == Pattern::full ? 6 * all : all + 5 * kept;
}

Panel epochs_panel(const std::vector<VariantResult>& results) {
  Panel panel{str("3. Epochs to ", learned, " %"), "seed, in order", "epochs"};
  for (const VariantResult& result : results) {
    Series series{result.name};
    series.style = Style::points;
    const auto epochs = epochs_to_accuracy(result, learned);
    for (size_t s = 0; s < epochs.size(); ++s)
      if (epochs[s]) series.x.push_back(double(s + 1)), series.y.push_back(*epochs[s]);
    panel.series.push_back(series);
  }
  panel.x_range = {0.5, double(results[0].curves.size()) + 0.5};
  panel.y_range = {0, double(results[1].curves[0].size())};  // of full
  return panel;
}

// The rule, as the README states it. A seed that never arrives counts as infinitely many epochs.
Judgement judge(const Outcomes& topk, const Outcomes& full) {
  const int seeds = int(topk.seeds.size()), faster = compare(topk, full).value().epochs.less;
  const double few = median(topk.epochs), many = median(full.epochs);
  const bool half = few <= many / 2 && few <= topk.longest;
  return {faster == seeds && half,
          str("1. topk(5) needs fewer epochs to ", learned, " % than full in ", faster, " of ",
              seeds, " seeds; 2. its median is at most half of full's: ", half ? "yes" : "NO", " (",
              epochs_text(few), " against ", epochs_text(many), ")")};
}

void tell_paper_scale(Lesson& out, const Recording& recording) {
  const Judgement v = judge(recording.at("topk(5)").outcomes(), recording.at("full").outcomes());
  out.paper_scale(paper_figure(recording, {"full", "topk(5)"},
                               "Even pairs at the paper's scale: five best keys against all"),
                  paper_table(recording), v.reproduced, v.words);
}

Judgement show(Lesson& out, const Study& study, const StudyResults& all) {
  const RunSettings &topk = study.variants[0].settings, &full = study.variants[1].settings;
  const std::vector<VariantResult> results = all.with_rest("");  // topk(5), full
  const std::vector<uint64_t>& seeds = all.variant("full").seeds;

  Figure figure{"Even pairs: five best keys against all"};
  figure.panels = {
      curve_panel(results, &EpochMetrics::train_loss, "1. Training loss", "cross-entropy"),
      curve_panel(results, &EpochMetrics::train_accuracy, "2. Training", "accuracy, %"),
      epochs_panel(results),
      curve_panel(results, &EpochMetrics::val_accuracy, "4. Held-out", "accuracy, %")};
  figure.caption = str("Length ", full.length, ", ", full.train_size,
                       " training examples; medians and quartiles of ", seeds.size(), " seeds.");
  out.figure(figure);
  std::cout << epochs_table(results, learned) << "\n";
  for (int length : {full.length, 600})
    std::cout << "multiply-adds of attention at length " << length
              << ", full / topk(5): " << multiply_adds(full, length) / multiply_adds(topk, length)
              << "\n";
  return judge(outcomes_of(all.variant("topk(5)")), outcomes_of(all.variant("full")));
}

}  // namespace

int main(int argc, char** argv) {
  return judge_at_both_scales(argc, argv, "lesson-05",
                              "does attention to the five best keys learn faster?", show,
                              tell_paper_scale);
}
