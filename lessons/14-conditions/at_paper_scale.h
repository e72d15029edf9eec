// Lesson 14 at the paper's size: Table 6 by what paper.sh made, and the prediction by the
// recordings of the lessons.
#pragma once

#include <iostream>

#include "report/lesson.h"
#include "report/share_progress.h"
#include "study/recording.h"
#include "table6.h"
#include "train/settings.h"

namespace focus {

// Predictors are those of the untrained models, the epochs those of the lessons' recordings at
// this size.
inline constexpr int paper_rows = 25;  // of each model: 1000 queries of each of its layers
inline constexpr const char* paper_mechanisms[] = {"full",    "full*4",  "topk(2)",
                                                   "topk(5)", "topk(9)", "banded(5)"};

class RecordedRuns {
 public:
  explicit RecordedRuns(const std::filesystem::path& lessons) {
    for (const char* folder : {"06-generalisation/results/paper", "17-sharpness/results/paper",
                               "14-conditions/results/paper", "17-sharpness/results/controls"})
      if (std::filesystem::exists(lessons / folder / "seeds.csv"))
        recordings_.push_back(read_recording(lessons / folder));
  }
  // With the paper's settings for the task, but for the attention and the number of epochs.
  const RecordedVariant* find(const std::string& task, const std::string& mechanism) const {
    const auto others = [](const RunSettings& s) {
      TextMap text = to_text(s);
      for (const char* key : {"attention", "k", "score-scale", "epochs"}) text.erase(key);
      return text;
    };
    const TextMap wanted = others(RunSettings::defaults_for(find_task(task)));
    for (const Recording& r : recordings_)
      for (const RecordedVariant& v : r.variants)
        if (v.mechanism == mechanism && others(v.settings) == wanted) return &v;
    return nullptr;
  }
  std::vector<std::string> tasks() const {
    std::vector<std::string> all;
    if (recordings_.empty()) return all;  // a student's tree
    for (const RecordedVariant& v : recordings_[0].variants)
      if (std::find(all.begin(), all.end(), v.settings.task) == all.end())
        all.push_back(v.settings.task);
    return all;
  }

 private:
  std::vector<Recording> recordings_;
};

// The rows of predictors.csv: every recorded run of these mechanisms before its first step. Empty:
// `stop` was set on the way.
inline std::vector<ModelRow> untrained_models(const RecordedRuns& recorded, int threads,
                                              const std::atomic<bool>& stop,
                                              const std::function<void(double)>& progress) {
  std::vector<std::pair<const RecordedVariant*, uint64_t>> models;
  for (const std::string& task : recorded.tasks())
    for (const char* mechanism : paper_mechanisms)
      if (const RecordedVariant* v = recorded.find(task, mechanism))
        for (const SeedOutcome& outcome : v->seeds) models.push_back({v, outcome.seed});
  std::vector<ModelRow> rows(models.size());
  std::atomic<int> done = 0;
  Workers workers(threads);
  workers.run(int(models.size()), [&](int i, int) {
    if (stop) return;
    const auto& [variant, seed] = models[size_t(i)];
    Run run(variant->settings, seed, make_run_data(variant->settings, seed));
    rows[size_t(i)] = measure_model(run, false, paper_rows);
    progress(double(++done) / double(models.size()));
  });
  if (stop) rows.clear();
  return rows;
}

// Against full attention with the same seed: epochs to the recordings' target, 95 % of the training
// set. Who does not get there has one epoch more than it was given.
inline std::vector<AgainstFull> compare_recorded(const RecordedRuns& recorded,
                                                 const std::vector<ModelRow>& rows) {
  std::vector<AgainstFull> all;
  const auto epochs_of = [](const RecordedVariant& v, const SeedOutcome& outcome) {
    return double(outcome.epochs.value_or(v.settings.epochs + 1));
  };
  for (const std::string& task : recorded.tasks()) {
    const RecordedVariant* by_full = recorded.find(task, "full");
    for (const char* mechanism : paper_mechanisms) {
      const RecordedVariant* own = recorded.find(task, mechanism);
      if (!own || !by_full || own == by_full) continue;
      for (const SeedOutcome& outcome : own->seeds)
        for (const SeedOutcome& of_full : by_full->seeds) {
          const ModelRow *a = row_of(rows, task, "full", outcome.seed, false),
                         *b = row_of(rows, task, mechanism, outcome.seed, false);
          if (of_full.seed != outcome.seed || !a || !b) continue;
          all.push_back({task, mechanism, outcome.seed,
                         std::log(epochs_of(*own, outcome) / epochs_of(*by_full, of_full)),
                         !outcome.epochs, theory_of(*a, *b), b->entropy - a->entropy});
        }
    }
  }
  return all;
}

// Figure, table and verdict, from the tables in `from`: measured.csv (Table 6), predictors.csv, or
// both.
inline void tell_paper_scale(Lesson& out, const std::filesystem::path& from) {
  Figure figure{"Lesson 14 at the paper's size"};
  std::string table, reason = "F12 (Table 6) is not measured; ";
  bool holds = false;
  if (std::filesystem::exists(from / "measured.csv")) {
    const std::vector<PooledCell> cells = pool(read_cell_rows(from / "measured.csv"));
    figure = paper_figure_of(cells), table = paper_table_of(cells);
    int weights = 0, inputs = 0, capped = 0;
    for (const PooledCell& p : cells) {
      weights += median(p.weights) < 1, inputs += median(p.inputs) < 1;
      capped += 2 * p.hold_capped > p.seeds;
    }
    const int all = int(cells.size());
    holds = 2 * weights >= all && 2 * inputs >= all;
    reason = str("F12, the median seed meets the weights' condition in ", weights, " of ", all,
                 " cells, the inputs' in ", inputs, ", with full's side capped ", capped, "; ");
  }
  if (std::filesystem::exists(from / "predictors.csv")) {
    const std::vector<AgainstFull> all = compare_recorded(RecordedRuns(out.folder().parent_path()),
                                                          read_rows(from / "predictors.csv"));
    figure.panels.push_back(
        prediction_panel(all, "Predicted by the theory", "ln of the constants' ratio", by_theory));
    figure.panels.push_back(prediction_panel(all, "Predicted by the sharpness",
                                             "entropy less full's, nats", by_sharpness));
    figure.caption += (figure.caption.empty() ? "" : " ") +
                      std::string(
                          "Predictions: seven tasks, ten seeds, the models before their "
                          "first step; left of 0 a mechanism is predicted to learn faster "
                          "than full attention, below 0 it does.");
    std::vector<AgainstFull> topk;
    int censored = 0;
    for (const AgainstFull& c : all)
      if (c.mechanism.starts_with("topk")) topk.push_back(c), censored += c.censored;
    const Prediction theory = judge(topk, "the theory", by_theory),
                     sharpness = judge(topk, "sharpness", by_sharpness);
    const auto said = [](bool yes) { return yes ? "yes" : "NO"; };
    reason += str("as a prediction of who learns faster: ", theory.words, ": ", said(theory.holds),
                  "; ", sharpness.words, ": ", said(sharpness.holds), " (", censored, " of ",
                  topk.size(), " censored)");
    std::map<std::string, std::pair<int, int>> faster;
    for (const AgainstFull& c : all)
      faster[c.mechanism].first += c.measured < 0, ++faster[c.mechanism].second;
    table += table.empty() ? "" : "\n";
    table +=
        "| | faster than full attention with the same seed | promised the smaller constant | "
        "less entropy at the start |\n|---|---|---|---|\n";
    for (const auto& [mechanism, count] : faster) {
      int promised = 0, sharper = 0;
      for (const AgainstFull& c : all)
        if (c.mechanism == mechanism) promised += c.theory < 0, sharper += c.sharpness < 0;
      const bool in_theory = !mechanism.starts_with("banded");
      table += str("| ", mechanism, " | ", count.first, " of ", count.second, " | ",
                   in_theory ? str(promised, " of ", count.second) : "—", " | ", sharper, " of ",
                   count.second, " |\n");
    }
  }
  out.paper_scale(figure, table, holds, reason);
}

// Table 6 from what paper.sh left in the output folder, if it has run; and the predictors, which
// need no training.
inline int measure_at_paper_scale(Lesson& out) {
  const std::filesystem::path from = out.options().out / "stability";
  out.write_into("lesson-14");
  const std::filesystem::path& to = out.options().out;
  std::filesystem::create_directories(to / "paper");
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_directory(from))
    for (const auto& entry : std::filesystem::directory_iterator(from))
      if (entry.path().extension() == ".json") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::vector<std::string> lines;
  std::vector<Cell> cells;
  for (const std::filesystem::path& file : files) read_cells(file, cells);
  for (const Cell& cell : cells) lines.push_back(text_of(cell));
  if (lines.empty())
    std::cout << "Table 6 is not measured: that needs lessons/14-conditions/paper.sh "
              << from.parent_path().string() << "\nand a GPU\n";
  else
    out.table_of(from, "lessons/14-conditions/paper.sh", cell_columns, lines, "paper/measured.csv");
  {
    ShareProgress progress("untrained models");
    std::mutex mutex;
    lines.clear();
    for (const ModelRow& row :
         untrained_models(RecordedRuns(out.folder().parent_path()),
                          std::max(1, out.options().threads), out.stop(), [&](double share) {
                            const std::lock_guard lock(mutex);
                            progress.show(share);
                          }))
      lines.push_back(text_of(row));
  }
  if (lines.empty()) return out.interrupted();
  std::sort(lines.begin(), lines.end());
  out.table(measured_columns, lines, "paper/predictors.csv");
  tell_paper_scale(out, to / "paper");
  return 0;
}

}  // namespace focus
