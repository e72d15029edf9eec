// A lesson that is a study. Its folder holds a table for each scale: study.csv (laptop), demo.csv
// and paper.csv; what they mean is explained at the top of study.h.
#pragma once

#include <functional>
#include <optional>

#include "report/lesson.h"
#include "study/results.h"
#include "train/run.h"

namespace focus {

// The table of the lesson's scale, with as many seeds as the command line asks for.
Study lesson_study(const Lesson& lesson);

// Runs it side by side in memory, shows its mechanisms' training accuracies live, and writes
// results.csv. At --redraw: reads the recorded results.csv instead; at the paper's scale what
// results_at_paper_scale() reads. nullopt if interrupted. `on_model` and `on_epoch_model`, if
// given: see StudyObserver.
std::optional<StudyResults> study_results(
    Lesson& lesson, const Study& study,
    const std::function<void(const StudyRun&, Run&)>& on_model = {},
    const std::function<void(const StudyRun&, Run&, const EpochMetrics&)>& on_epoch_model = {});

// DIR/study/results.csv, which lessons/paper_scale.sh has had `focus study` make. InputError if
// runs are missing.
StudyResults results_at_paper_scale(const Lesson& lesson);

}  // namespace focus
