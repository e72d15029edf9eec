// Lesson 03: does a transformer with full attention learn even pairs, and how? README.md has the
// mathematics and the rule of the verdict.
#include "report/lesson.h"

#include <cmath>
#include <iostream>

#include "report/curves.h"
#include "report/statistics.h"
#include "study/lesson_study.h"

using namespace focus;

namespace {

constexpr double learned = 95;                   // percent of the training set
const double plateau_loss = 0.95 * std::log(2);  // guessing costs ln 2

// One line for each seed: a median would smear drops that come at different epochs.
Panel seed_panel(const VariantResult& full, const std::vector<uint64_t>& seeds,
                 double EpochMetrics::*metric, const char* title, const char* y_label) {
  Panel panel{title, "epoch", y_label};
  const auto curves = full.values(metric);
  for (size_t s = 0; s < seeds.size(); ++s) {
    panel.series.push_back({str("seed ", seeds[s]), {}, curves[s]});
    for (size_t e = 1; e <= curves[s].size(); ++e) panel.series.back().x.push_back(double(e));
  }
  return panel;
}

// The last epoch up to which no epoch's training loss was below the plateau's.
int plateau_end(const std::vector<EpochMetrics>& curve) {
  size_t epochs = 0;
  while (epochs < curve.size() && curve[epochs].train_loss >= plateau_loss) ++epochs;
  return int(epochs);
}

Figure draw(const VariantResult& full, const std::vector<uint64_t>& seeds, const RunSettings& s) {
  Figure figure{"Even pairs with full attention"};
  figure.panels = {
      seed_panel(full, seeds, &EpochMetrics::train_loss, "1. Training loss", "cross-entropy"),
      seed_panel(full, seeds, &EpochMetrics::train_accuracy, "2. Training", "accuracy, %"),
      seed_panel(full, seeds, &EpochMetrics::val_accuracy, "3. Held-out", "accuracy, %"),
      seed_panel(full, seeds, &EpochMetrics::train_loss, "4. Training loss, logarithmic", "")};
  figure.panels[3].log_y = true;
  figure.panels[0].horizontal = {{plateau_loss, "95 % of ln 2"}};
  figure.caption =
      str("Length ", s.length, ", ", s.train_size,
          " training examples, one line a seed. ln 2 = 0.693 is the loss of guessing.");
  return figure;
}

// The rule, as the README states it.
struct Verdict {
  bool reproduced;
  std::string reason;
};
Verdict judge(const VariantResult& full, const std::vector<uint64_t>& seeds, int longest) {
  int arrived = 0, plateaus = 0;
  const auto epochs = epochs_to_accuracy(full, learned);
  for (size_t s = 0; s < seeds.size(); ++s) {
    const int flat = plateau_end(full.curves[s]);
    arrived += epochs[s].has_value();
    plateaus += epochs[s] && 2 * flat >= *epochs[s];
    std::cout << "seed " << seeds[s] << ": loss at least 95 % of ln 2 up to epoch " << flat << ", "
              << learned << " % accuracy at epoch " << epochs_text(epochs[s]) << "\n";
  }
  std::cout << "\n";
  const int count = int(seeds.size());
  return {
      5 * arrived >= 4 * count && 2 * plateaus > count,
      str("1. learns: ", arrived, " of ", count, " seeds reach ", learned, " % within ", longest,
          " epochs (median ", epochs_text(median_epochs(epochs)),
          "); 2. a plateau of at least half of that time: ", plateaus, " of ", count, " seeds")};
}

// Ten seeds of the paper's size, all of their epochs: the plateau has to be seen.
void tell_paper_scale(Lesson& out, const StudyResults& results) {
  const StudiedVariant& full = results.variant("full");
  const RunSettings settings = RunSettings::defaults_for(find_task("even-pairs"));
  const VariantResult curves{full.name, full.curves};
  const Verdict v = judge(curves, full.seeds, settings.epochs);
  out.paper_scale(draw(curves, full.seeds, settings), "", v.reproduced, v.reason);
}

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-03", "does full attention learn even pairs, and how?");
  if (out.options().paper_scale) {
    tell_paper_scale(out, results_at_paper_scale(out));
    return 0;
  }
  const Study study = lesson_study(out);
  const std::optional<StudyResults> results = study_results(out, study);
  if (!results) return out.interrupted();
  const RunSettings& settings = study.variants[0].settings;
  const std::vector<uint64_t>& seeds = results->variant("full").seeds;
  const VariantResult full = results->with_rest("")[0];
  out.figure(draw(full, seeds, settings));
  if (out.options().redraw)
    tell_paper_scale(out, read_results(out.recorded() / "paper/results.csv"));
  const Verdict v = judge(full, seeds, settings.epochs);
  return out.verdict(v.reproduced, v.reason);
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
