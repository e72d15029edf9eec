// What a lesson shows of the runs at the paper's scale that are recorded beside its own, in
// results/paper (study/recording.h): a figure in the paper's layout, a table, a verdict.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "report/lesson.h"
#include "study/recording.h"
#include "study/rule.h"

namespace focus {

// At --redraw, if the lesson has one; what is not recorded has no figure. At the paper's scale that
// of the runs that were made for it (study/lesson_study.h).
std::optional<Recording> paper_recording(const Lesson& lesson);

// A whole lesson that judges its study at both scales: runs or reads the study, which `here` shows
// and judges, and tells the runs at the paper's scale, if they are recorded or have just been made.
// The program's exit code.
int judge_at_both_scales(int argc, char** argv, const char* name, const char* question,
                         Judgement (*here)(Lesson&, const Study&, const StudyResults&),
                         void (*at_paper_scale)(Lesson&, const Recording&));

// The different values of `rest`, in order: tasks, if that is what the variants differ in.
std::vector<std::string> rests_of(const Recording& recording);

// A column for each of `rests`: above the training loss, below the held-out accuracy of these
// mechanisms, medians with the quartile band over the seeds. The columns go on below after as many
// as `columns`; 0: all beside each other.
Figure paper_figure(const Recording& recording, const std::vector<std::string>& mechanisms,
                    const std::string& title, int columns = 0);

// Figure, table and verdict of a lesson that judges topk(5) against full by their epochs
// (study/rule.h, with this share) at each of `rests`: reproduced if it is at each, and all of them
// are recorded.
void tell_each_setting(Lesson& lesson, const Recording& recording, const std::string& title,
                       double share);

// For a page, a row for each of `rests`, a column for each mechanism: the median of the epochs to
// the target and, in brackets, that of the held-out accuracy after the last epoch. "not run" where
// nothing is recorded.
std::string paper_table(const Recording& recording);

// "NVIDIA H200, CUDA 13.0; 2026-11-28; focus study of commit …": a line for below the table.
std::string paper_source(const Recording& recording);

}  // namespace focus
