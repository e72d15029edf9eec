// Lesson 12: does top-k attention learn faster whatever the optimiser, its rate and its decay?
// README.md has the mathematics and the rule of the verdict.
#include "report/lesson.h"

#include <cmath>
#include <iostream>

#include "report/curves.h"
#include "study/paper_scale.h"
#include "study/summary.h"
#include "train/rate_budget.h"

using namespace focus;

namespace {

// The rule's: topk's median epochs are at most this share of full's.
constexpr double most_of_full = 0.75;

const RunSettings& settings_of(const Study& study, const std::string& variant) {
  for (const StudyVariant& v : study.variants)
    if (v.name == variant) return v.settings;
  fail_input("results.csv: no variant of the lesson's table is called '", variant, "'");
}

std::string two_digits(double value) {
  return number_text(std::round(value * 100) / 100);
}

// What the rates of SGD's epochs add up to until half of the seeds have learnt the task.
std::string rates_text(const RunSettings& s, const StudiedVariant& v) {
  const double epochs = median_epochs(epochs_to_target(v));
  if (!std::isfinite(epochs)) return str(v.mechanism, " never");
  return str(v.mechanism, " ", two_digits(sum_of_rates(s.lr, s.lr_decay, epochs)));
}

void tell_paper_scale(Lesson& out, const Recording& recording) {
  tell_each_setting(out, recording,
                    "Rates, decays and Adam at the paper's scale: five best keys against all",
                    most_of_full);
}

Judgement show(Lesson& out, const Study& study, const StudyResults& results) {
  const std::vector<std::string> settings = results.rests();  // "sgd lr=0.1 lr-decay=0.9995", …

  // A small panel for each setting, as in the paper's figure 3.
  Figure figure{"Five best keys against all, at several settings of the optimiser"};
  figure.columns = 3;
  for (const std::string& s : settings)
    figure.panels.push_back(
        curve_panel(results.with_rest(s), &EpochMetrics::train_loss, s, "training loss"));
  const RunSettings& first = study.variants[0].settings;
  figure.caption =
      str("Task ", first.task, ", length ", first.length, ", ", first.train_size,
          " training examples; medians and quartiles over ", results.variants[0].seeds.size(),
          results.variants[0].seeds.size() == 1 ? " seed." : " seeds.");
  out.figure(figure, false);
  std::cout << summary_table(summarise(results.variants)) << "\n";

  std::cout << "The rates of SGD, summed over the epochs until the task is learnt:\n";
  for (const std::string& s : settings) {
    const RunSettings run = settings_of(study, str("full ", s));
    if (run.optimizer != OptimizerKind::sgd) continue;
    std::cout << "  " << s << ": " << rates_text(run, results.variant(str("topk(5) ", s))) << ", "
              << rates_text(run, results.variant(str("full ", s))) << "; without end "
              << two_digits(sum_of_rates(run.lr, run.lr_decay, HUGE_VAL)) << "\n";
  }
  std::cout << "\n";

  const Judgements each = judge_each_setting(results, most_of_full);
  return {each.reproduced == settings.size(),
          str(each.reproduced, " of ", settings.size(), " settings. ", each.words)};
}

}  // namespace

int main(int argc, char** argv) {
  return judge_at_both_scales(argc, argv, "lesson-12",
                              "does focus help at other rates and decays, and with Adam?", show,
                              tell_paper_scale);
}
