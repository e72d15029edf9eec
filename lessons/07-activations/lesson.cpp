// Lesson 07: does top-k attention learn faster whatever the activation of the feed-forward half?
// README.md has the mathematics and the rule of the verdict.
#include "report/lesson.h"

#include <cstdio>
#include <iostream>

#include "report/curves.h"
#include "study/lesson_study.h"
#include "study/summary.h"

using namespace focus;

namespace {

constexpr double most_of_full =
    0.75;  // the rule's: topk's median epochs are at most this of full's

std::string two_digits(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.2f", value);
  return text;
}

struct Judgement {
  bool reproduced = false;
  std::string words;
};

// The rule, as the README states it, for one activation. A seed that never arrives counts as
// infinitely many epochs, and a NaN fails.
Judgement judge(const StudyResults& read, const std::string& activation) {
  const StudiedVariant& topk = read.variant(str("topk(5) ", activation));
  const StudiedVariant& full = read.variant(str("full ", activation));
  const Comparison c = compare(topk, full).value();
  const double few = median_epochs(epochs_to_target(topk)),
               many = median_epochs(epochs_to_target(full));
  const bool arrives = few <= double(topk.curves[0].size());
  const bool each_faster = c.epochs.less == int(topk.seeds.size());
  Judgement j;
  j.reproduced = arrives && each_faster && few <= most_of_full * many;
  j.words =
      str(activation, ": ", j.reproduced ? "reproduced" : "NOT reproduced", "; medians ",
          epochs_text(few), " against ", epochs_text(many), " epochs, faster in ", c.epochs.less,
          " of ", topk.seeds.size(), " seeds (sign test p = ", two_digits(c.epochs.p), "), ",
          two_digits(c.speedup.value), " times fewer, interval ", two_digits(c.speedup.low), " to ",
          two_digits(c.speedup.high), "; held-out accuracy ", two_digits(c.val_gain.value),
          " points higher");
  return j;
}

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-07", "does focus help with GELU and Mish as with ReLU?");
  const Study study = lesson_study(out);
  const std::optional<StudyResults> read = study_results(out, study);
  if (!read) return out.interrupted();
  const std::vector<std::string> activations = read->rests();  // "relu", "gelu", "mish"

  // A column for each activation, as in the paper's figure 2.
  Figure figure{"Even pairs: five best keys against all, with three activations"};
  figure.columns = int(activations.size());
  for (const std::string& a : activations)
    figure.panels.push_back(curve_panel(read->with_rest(a), &EpochMetrics::train_loss,
                                        str(a, ", training"), "cross-entropy"));
  for (const std::string& a : activations)
    figure.panels.push_back(curve_panel(read->with_rest(a), &EpochMetrics::val_accuracy,
                                        str(a, ", held-out"), "accuracy, %"));
  const RunSettings& s = study.variants[0].settings;
  figure.caption =
      str("Length ", s.length, ", ", s.train_size, " training examples; medians and quartiles of ",
          read->variants[0].seeds.size(), " seeds.");
  out.figure(figure);
  std::cout << summary_table(summarise(read->variants)) << "\n";

  int reproduced = 0;
  std::string words;
  for (const std::string& a : activations) {
    const Judgement j = judge(*read, a);
    reproduced += j.reproduced;
    words += str(words.empty() ? "" : ". ", j.words);
  }
  return out.verdict(reproduced == int(activations.size()), words);
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
