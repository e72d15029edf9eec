// `make demo`: four attention mechanisms learn even pairs from scratch, side by side and live.
//
// Even pairs: does a string of zeros and ones hold an even number of unequal neighbours? (It does
// if its first and last symbol agree, but nobody tells the model.)
#include <iostream>

#include "report/curves.h"
#include "report/lesson.h"
#include "report/statistics.h"
#include "study/lesson_study.h"

using namespace focus;

namespace {

// The paper: length 40, 5000 examples, 100 epochs.
constexpr const char* table =
    "task,       attention,              k, length, train-size, val-size, epochs, seeds\n"
    "even-pairs, full|banded|block|topk, 5, 30,     2500,       500,      10,     2\n";
constexpr double solved = 95;  // percent of the training set

int demo(int argc, char** argv) {
  Lesson lesson(argc, argv, "demo", "which attention learns even pairs first?");
  Study study = parse_study(table, "demo");
  if (lesson.options().seeds > 0) study = with_seeds(study, lesson.options().seeds);
  const std::vector<uint64_t>& seeds = study.variants[0].seeds;
  const int epochs = study.variants[0].settings.epochs;
  std::string seed_text;
  for (uint64_t seed : seeds) seed_text += str(" ", seed);
  std::cout
      << "Four transformers, alike but for what a query may attend to, are trained from scratch:"
      << "\n  full: every token;  banded(5), block(5): five fixed ones;  topk(5): the five with"
      << "\n  the largest scores. Strings of 30 symbols, 2500 to learn from, 500 held out, 5 "
         "blocks,"
      << "\n  d = 64, SGD. Seeds:" << seed_text << "\n\n";
  const std::optional<StudyResults> studied = study_results(lesson, study);
  if (!studied) return lesson.interrupted();
  const std::vector<VariantResult> results = studied->with_rest("");
  std::cout << "\n" << epochs_table(results, solved) << "\n";
  Figure figure;
  figure.title = "Even pairs, four attention mechanisms";
  figure.panels = {curve_panel(results, &EpochMetrics::train_loss, "training", "cross-entropy"),
                   curve_panel(results, &EpochMetrics::val_accuracy, "held-out", "accuracy, %")};
  figure.caption = "Median over the seeds" + seed_text + ", with the quartile band.";
  lesson.figure(figure, false);

  // The rule, fixed before the run: top-k solves the task with every seed, no other with any.
  const auto solved_by = [&](const VariantResult& result) {
    size_t count = 0;
    for (const auto& e : epochs_to_accuracy(result, solved)) count += e.has_value();
    return count;
  };
  std::string others;
  size_t others_solved = 0;
  for (size_t v = 0; v + 1 < results.size(); ++v) {
    others_solved += solved_by(results[v]);
    others += str(v ? ", " : "", results[v].name, " ", int(median([&] {
                    std::vector<double> last;
                    for (const auto& curve : results[v].curves)
                      last.push_back(curve.back().train_accuracy);
                    return last;
                  }())),
                  " %");
  }
  const size_t topk_solved = solved_by(results.back());
  return lesson.verdict(topk_solved == seeds.size() && others_solved == 0,
                        str("topk(5) reached ", solved, " % with ", topk_solved, " of ",
                            seeds.size(), " seeds (median epoch ",
                            epochs_text(median_epochs(epochs_to_accuracy(results.back(), solved))),
                            "); after ", epochs, " epochs the others stood at ", others));
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return demo(argc, argv); });
}
