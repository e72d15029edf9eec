#include "study/lesson_study.h"

#include <algorithm>

#include "error.h"
#include "report/curves.h"
#include "study/engine.h"

namespace focus {

namespace {

// One curve a mechanism; its other settings are thrown together.
std::vector<VariantResult> by_mechanism(const std::vector<StudiedVariant>& variants) {
  std::vector<VariantResult> all;
  for (const StudiedVariant& v : variants) {
    auto same = std::find_if(all.begin(), all.end(),
                             [&](const VariantResult& r) { return r.name == v.mechanism; });
    if (same == all.end()) same = all.insert(same, {v.mechanism, {}});
    same->curves.insert(same->curves.end(), v.curves.begin(), v.curves.end());
  }
  return all;
}

}  // namespace

Study lesson_study(const Lesson& lesson) {
  const LessonOptions& o = lesson.options();
  const char* table = o.demo_scale ? "demo.csv" : o.paper_scale ? "paper.csv" : "study.csv";
  const Study study = read_study(lesson.folder() / table);
  return o.seeds > 0 ? with_seeds(study, o.seeds) : study;
}

std::optional<StudyResults> study_results(
    Lesson& lesson, const Study& study, const std::function<void(const StudyRun&, Run&)>& on_model,
    const std::function<void(const StudyRun&, Run&, const EpochMetrics&)>& on_epoch_model) {
  if (lesson.options().redraw) return read_results(lesson.recorded() / "results.csv");
  if (lesson.options().paper_scale) return results_at_paper_scale(lesson);
  int epochs = 0;
  for (const StudyVariant& v : study.variants) epochs = std::max(epochs, v.settings.epochs);
  LiveCurves live("training accuracy, median", epochs);
  StudyObserver observer;
  observer.stop = &lesson.stop();
  observer.on_model = on_model, observer.on_epoch_model = on_epoch_model;
  observer.on_epoch = [&](const StudyProgress& p) {
    live.show(by_mechanism(*p.variants), p.share);
  };
  StudyOptions options;
  options.threads = lesson.options().threads;
  options.together = true;
  StudyOutcome outcome = run_study(study, options, observer);
  if (!outcome.is_over) return std::nullopt;
  lesson.write("results.csv", results_text(study, {}, outcome.results.variants));
  return std::move(outcome.results);
}

StudyResults results_at_paper_scale(const Lesson& lesson) {
  const std::string advice = str("; make lesson-", lesson.number(), " SCALE=paper makes them");
  const std::filesystem::path file = lesson.options().out / "study/results.csv";
  if (!std::filesystem::exists(file))
    fail_input(file.string(), " is not there: no runs at the paper's scale", advice);
  StudyResults results = read_results(file);
  for (const auto& [key, value] : results.notes)
    if (key == "not over") fail_input(file.string(), ": ", value, " are not over", advice);
  return results;
}

}  // namespace focus
