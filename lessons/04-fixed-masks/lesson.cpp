// Lesson 04: does attention to a few fixed keys learn faster than attention to all? README.md has
// the mathematics and the rule of the verdict; the dispersions are measured in dispersion.h.
#include "report/lesson.h"

#include <algorithm>
#include <iostream>

#include "dispersion.h"
#include "report/curves.h"
#include "study/lesson_study.h"
#include "study/paper_scale.h"

using namespace focus;

namespace {

constexpr double learned = 95;       // percent of the training set
constexpr double all_of_it = 0.999;  // of a query's dispersion, in the mask's worst order
constexpr int k = 5;

// Fewer epochs than full with at least 80 % of the seeds, and by the median too.
bool is_faster(const Outcomes& mask, const Outcomes& full) {
  const Comparison c = compare(mask, full).value();
  return 5 * c.epochs.less >= 4 * int(mask.seeds.size()) &&
         median(mask.epochs) < median(full.epochs);
}

// Of what is recorded at the paper's scale, F2 only: no dispersions were measured there.
void tell_paper_scale(Lesson& out, const Recording& recording) {
  const Outcomes full = recording.variants[0].outcomes();
  std::string faster, medians;
  for (const RecordedVariant& v : recording.variants) {
    const Outcomes o = v.outcomes();
    medians += str(medians.empty() ? "" : ", ", v.name, " ", epochs_text(median(o.epochs)));
    if (v.mechanism != "full" && is_faster(o, full)) faster += " " + v.name;
  }
  out.paper_scale(
      paper_figure(recording, {"full", "banded(5)", "block(5)", "banded(5)+1", "block(5)+1"},
                   "Even pairs at the paper's scale: fixed masks against full attention"),
      paper_table(recording), faster.empty(),
      str("F2 ", faster.empty() ? "reproduced, no mask learns" : "not reproduced, these learn",
          " faster than full", faster, " (median epochs to ", learned, " %: ", medians,
          "); F10 was not measured at this scale"));
}

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-04", "do fixed masks make attention learn faster?");
  if (out.options().paper_scale) {
    tell_paper_scale(out, *paper_recording(out));
    return 0;
  }
  const Study study = lesson_study(out);
  Dispersions dispersions(k);
  const auto measure = [&](const StudyRun& run, Run& model) {
    const RunSettings& settings = study.variants[run.variant].settings;
    if (settings.attention == Pattern::full)
      dispersions.measure(run.seed_index, model, model.epochs_done() == settings.epochs);
  };
  const std::optional<StudyResults> studied = study_results(out, study, measure);
  if (!studied) return out.interrupted();
  out.table(dispersion_columns, dispersions.rows(), "dispersion.csv");
  // What is shown now and what is drawn again later are the same numbers.
  const std::vector<Remaining> remaining =
      read_dispersions(out.options().redraw ? out.recorded() : out.options().out);
  const std::vector<VariantResult> results = studied->with_rest("");
  const std::vector<uint64_t>& seeds = studied->variant("full").seeds;
  const RunSettings& full = study.variants[0].settings;

  Figure figure{"Even pairs: fixed masks against full attention"};
  figure.panels = {
      curve_panel(results, &EpochMetrics::train_loss, "1. Training loss", "cross-entropy"),
      curve_panel(results, &EpochMetrics::train_accuracy, "2. Training", "accuracy, %"),
      share_panel(remaining, false, "3. Dispersion left, untrained"),
      share_panel(remaining, true, "4. Dispersion left, trained")};
  figure.caption =
      str("Length ", full.length, ", ", full.train_size,
          " training examples; medians and quartiles of ", seeds.size(),
          " seeds. 3 and 4: masks laid over the scores of models with full attention.");
  out.figure(figure);
  if (const auto recording = paper_recording(out)) tell_paper_scale(out, *recording);
  std::cout << epochs_table(results, learned) << "\n";

  // The rule, as the README states it.
  std::string faster;
  for (size_t v = 1; v < results.size(); ++v)
    if (is_faster(outcomes_of(studied->variants[v]), outcomes_of(studied->variants[0])))
      faster += " " + results[v].name;
  // The least over the seeds: of a query's dispersion in the mask's worst order, which is judged,
  // and of the largest dispersion in the order that the tokens have, which the first rule judged.
  std::string placed, left;
  bool shrinks = false;
  for (bool trained : {false, true}) {
    for (std::string* text : {&placed, &left}) *text += trained ? "; trained" : "untrained";
    for (const AttentionSettings& mask : measured_masks(k)) {
      double least_placed = 1, least_left = 1;
      for (const Remaining& r : remaining)
        if (r.seed != 0 && r.trained == trained && r.mask.starts_with(name_of(mask.pattern))) {
          least_placed = std::min(least_placed, r.least_placed);
          least_left = std::min(least_left, r.share_of_largest());
        }
      if (is_positional(mask.pattern) && !(least_placed >= all_of_it)) shrinks = true;
      placed += str(" ", name_of(mask.pattern), " ", std::round(1000 * least_placed) / 1000);
      left += str(" ", name_of(mask.pattern), " ", std::round(100 * least_left) / 100);
    }
  }
  return out.verdict(
      faster.empty() && !shrinks,
      str("1. F2 ", faster.empty() ? "reproduced, no mask learns" : "not reproduced, these learn",
          " faster than full", faster, "; 2. F10 ", shrinks ? "not reproduced" : "reproduced",
          ", in the worst order of the tokens banded and block must leave each query ", all_of_it,
          " of its dispersion, the least is: ", placed,
          " (topk is not judged); in the order that the tokens have, the least share of the "
          "largest "
          "dispersion, of which the first rule wanted 0.8 and found F10 not reproduced, is: ",
          left));
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
