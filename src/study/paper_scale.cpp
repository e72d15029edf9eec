#include "study/paper_scale.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

#include "study/lesson_study.h"
#include "study/make_recording.h"

namespace focus {

namespace {

void add_new(std::vector<std::string>& all, const std::string& one) {
  if (std::find(all.begin(), all.end(), one) == all.end()) all.push_back(one);
}

const RecordedVariant* find(const Recording& recording, const std::string& mechanism,
                            const std::string& rest) {
  for (const RecordedVariant& v : recording.variants)
    if (v.mechanism == mechanism && v.rest == rest) return &v;
  return nullptr;
}

std::string cell_of(const RecordedVariant* v) {
  if (!v) return "not run";
  const Outcomes o = v->outcomes();
  char text[64];
  std::snprintf(text, sizeof text, "%s (%.1f)", epochs_text(median(o.epochs)).c_str(),
                median(o.val_accuracy));
  return text;
}

}  // namespace

std::optional<Recording> paper_recording(const Lesson& lesson) {
  if (lesson.options().paper_scale)
    return make_recording(lesson_study(lesson), {results_at_paper_scale(lesson)}, false);
  const auto folder = lesson.recorded() / "paper";
  if (!lesson.options().redraw) return std::nullopt;
  if (std::filesystem::exists(folder / "seeds.csv")) return read_recording(folder);
  std::cout << "at the paper's scale: not run; make lesson-" << lesson.number()
            << " SCALE=paper makes the runs\n";
  return std::nullopt;
}

int judge_at_both_scales(int argc, char** argv, const char* name, const char* question,
                         Judgement (*here)(Lesson&, const Study&, const StudyResults&),
                         void (*at_paper_scale)(Lesson&, const Recording&)) {
  return run_lesson([&] {
    Lesson lesson(argc, argv, name, question);
    if (lesson.options().paper_scale) {
      at_paper_scale(lesson, *paper_recording(lesson));
      return 0;
    }
    const Study study = lesson_study(lesson);
    const std::optional<StudyResults> results = study_results(lesson, study);
    if (!results) return lesson.interrupted();
    const Judgement j = here(lesson, study, *results);
    if (const auto recording = paper_recording(lesson)) at_paper_scale(lesson, *recording);
    return lesson.verdict(j.reproduced, j.words);
  });
}

std::vector<std::string> rests_of(const Recording& recording) {
  std::vector<std::string> all;
  for (const RecordedVariant& v : recording.variants) add_new(all, v.rest);
  return all;
}

Figure paper_figure(const Recording& recording, const std::vector<std::string>& mechanisms,
                    const std::string& title, int columns) {
  Figure figure{title};
  const std::vector<std::string> rests = rests_of(recording);
  const size_t width = columns > 0 ? size_t(columns) : rests.size();
  figure.columns = std::max(2, int(width));
  std::vector<std::string> not_run;
  const auto row = [&](size_t from, Band RecordedVariant::*band, bool with_titles,
                       const char* y_label) {
    for (size_t i = from; i < std::min(from + width, rests.size()); ++i) {
      std::vector<const RecordedVariant*> shown;
      for (const std::string& mechanism : mechanisms)
        if (const RecordedVariant* v = find(recording, mechanism, rests[i]))
          shown.push_back(v);
        else
          add_new(not_run, rests[i].empty() ? mechanism : str(mechanism, " on ", rests[i]));
      figure.panels.push_back(recorded_panel(shown, band, with_titles ? rests[i] : "", y_label));
    }
  };
  for (size_t from = 0; from < rests.size(); from += width) {
    row(from, &RecordedVariant::train_loss, true, "training cross-entropy");
    row(from, &RecordedVariant::val_accuracy, false, "held-out accuracy, %");
  }
  const RecordedVariant& first = recording.variants[0];
  figure.caption = str("The paper's scale: length ", first.settings.length, ", ",
                       first.settings.train_size, " training examples; medians and quartiles of ",
                       first.seeds.size(), " seeds. ", paper_source(recording), ".");
  for (size_t i = 0; i < not_run.size(); ++i)
    figure.caption +=
        str(i == 0 ? " Not run: " : ", ", not_run[i], i + 1 < not_run.size() ? "" : ".");
  return figure;
}

void tell_each_setting(Lesson& lesson, const Recording& recording, const std::string& title,
                       double share) {
  const std::vector<std::string> rests = rests_of(recording);
  size_t reproduced = 0;
  std::string words;
  for (const std::string& rest : rests) {
    const RecordedVariant *topk = find(recording, "topk(5)", rest),
                          *full = find(recording, "full", rest);
    Judgement j{false, "not run"};
    if (topk && full) j = judge_epochs(topk->outcomes(), full->outcomes(), share);
    reproduced += j.reproduced;
    words += str(". ", rest, ": ", j.words);
  }
  for (const std::string& name : recording.not_run) words += str(". ", name, ": not run");
  lesson.paper_scale(paper_figure(recording, {"full", "topk(5)"}, title, 4), paper_table(recording),
                     reproduced == rests.size() && recording.not_run.empty(),
                     str(reproduced, " of ", rests.size(), " settings", words));
}

std::string paper_table(const Recording& recording) {
  std::vector<std::string> mechanisms;
  for (const RecordedVariant& v : recording.variants) add_new(mechanisms, v.mechanism);
  std::string head = "| |", rule = "|---|", rows;
  for (const std::string& mechanism : mechanisms) head += " " + mechanism + " |", rule += "---|";
  for (const std::string& rest : rests_of(recording)) {
    int epochs = 0;
    for (const RecordedVariant& v : recording.variants)
      if (v.rest == rest) epochs = std::max(epochs, v.settings.epochs);
    rows += str("| ", rest.empty() ? recording.variants[0].settings.task : rest, ", ", epochs,
                " epochs |");
    for (const std::string& mechanism : mechanisms)
      rows += " " + cell_of(find(recording, mechanism, rest)) + " |";
    rows += "\n";
  }
  return head + "\n" + rule + "\n" + rows;
}

std::string paper_source(const Recording& recording) {
  std::string text;
  for (const char* key : {"hardware", "date", "source"})
    for (const auto& [k, value] : recording.notes)
      if (k == key) text += (text.empty() ? "" : "; ") + value;
  return text;
}

}  // namespace focus
