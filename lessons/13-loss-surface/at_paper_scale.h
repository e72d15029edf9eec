// Lesson 13 at the paper's size: figures, tables and verdict.
#pragma once

#include <iostream>
#include <map>
#include <set>

#include "paper_rows.h"
#include "report/lesson.h"
#include "report/svg_plot.h"
#include "steepness.h"

namespace focus {

inline constexpr const char* judged_tasks[] = {"even-pairs", "missing-duplicate", "parity"};

// With which both mechanisms are in the table.
inline std::vector<uint64_t> seeds_of(const Table& t, const std::string& state) {
  std::map<uint64_t, std::set<std::string>> found;
  for (const Measured& m : t)
    if (m.state == state) found[m.seed].insert(m.mechanism);
  std::vector<uint64_t> seeds;
  for (const auto& [seed, mechanisms] : found)
    if (mechanisms.size() == 2) seeds.push_back(seed);
  return seeds;
}

// Of a seed both have learnt: the rule's seeds that count.
inline bool counts(const Table& t, uint64_t seed) {
  const auto accuracy = [&](const std::string& m) {
    return median(values(t, "accuracy", m, "last", seed, 0));
  };
  return accuracy(full) >= learned && accuracy(topk) >= learned;
}

inline std::string equal_loss(const std::string& task) {
  return str("training loss ", matched_loss_of(task));
}

// A row of the table, and how many of the seeds that count have top-k as the less steep one.
struct OfState {
  std::string row;
  int seeds = 0, lower = 0, lower_per_norm = 0;
};
inline OfState tell_state(const Table& t, const std::string& task, const std::string& state) {
  OfState told;
  std::string numbers;
  for (uint64_t seed : seeds_of(t, state)) {
    const auto at = [&](const std::string& m, bool per_norm) {
      return steepness(t, "p99", m, state, seed, verdict_radius, per_norm);
    };
    const bool in = counts(t, seed);
    char text[60];
    std::snprintf(text, sizeof text, in ? "%.3g / %.3g" : "(%.3g / %.3g)", at(topk, false),
                  at(full, false));
    numbers += (numbers.empty() ? "" : ", ") + std::string(text);
    told.seeds += in;
    told.lower += in && at(topk, false) < at(full, false);
    told.lower_per_norm += in && at(topk, true) < at(full, true);
  }
  told.row = str("| ", task, " | ", state == "last" ? "last weights" : equal_loss(task), " | ",
                 numbers, " | ", told.lower, " of ", told.seeds, " | ", told.lower_per_norm, " of ",
                 told.seeds, " |\n");
  return told;
}

// Percentiles of the fine surface's slopes by radius, as the paper draws them.
inline Panel fine_slopes(const Table& t, uint64_t seed, const std::string& title) {
  Panel panel{title, "radius"};
  for (const std::string& m : {full, topk})
    for (const char* p : {"99", "95", "75", "50"}) {
      Series s =
          over(str(m, ", ", p, " %"), places(t, str("p", p)), {seed}, [&](uint64_t of, double r) {
            return steepness(t, str("p", p), m, "fine", of, r, false);
          });
      s.low.clear(), s.high.clear();
      panel.series.push_back(s);
    }
  panel.log_y = true;
  return panel;
}

// The steepest step on a line, zoomed in.
inline Panel zoom_panel(const Table& t, const std::string& task) {
  Panel zoomed{task + ": the steepest step", "step", "slope"};
  for (const std::string& m : {full, topk})
    zoomed.series.push_back(
        over(m, places(t, "steepest"), seeds_of(t, "line"), [&](uint64_t seed, double x) {
          return median(values(t, "steepest", m, "line", seed, x));
        }));
  zoomed.log_x = zoomed.log_y = true;
  return zoomed;
}

// What was measured, by task (and activation, unless it is ReLU).
using Tables = std::map<std::string, Table>;

// The paper's own picture of a task, with each activation.
inline Figure fine_figure(const std::string& task) {
  Figure figure{task + ": 200 x 200 points, one training seed, one pair of directions"};
  figure.columns = 3;
  figure.caption =
      str("Every fifth point drawn, step 0.01, ",
          task == "list-operations" ? "500 training rows" : "all training rows",
          ". White: losses of 0.1, 0.5, 1, 2 and 4; what lies above 4 has the colour of 4.");
  return figure;
}

// Draws each task's surfaces-TASK.svg, and returns their table.
inline std::string tell_fine(Lesson& out, const Tables& fine) {
  if (fine.empty()) return "";
  std::map<std::string, Figure> figures;
  std::string table =
      "\n| 200 × 200 | 99th percentile per step within 0.1, topk(5) / full | within 0.35 | within "
      "0.69 | at 0.35 per length of the weights |\n|---|---|---|---|---|\n";
  for (const auto& [name, t] : fine) {
    const std::string task = name.substr(0, name.find(','));
    Figure& surfaces = figures.try_emplace(task, fine_figure(task)).first->second;
    const uint64_t seed = t[0].seed;
    const Interval colours = colours_of(t);
    for (const std::string& m : {full, topk}) {
      surfaces.panels.push_back(map_panel(t, m, name + ": loss around " + m, 1, colours));
      surfaces.panels.back().map->levels = {0.1, 0.5, 1, 2, 4};
    }
    surfaces.panels.push_back(fine_slopes(t, seed, "slopes per step, by radius"));
    // The nearest of the radii, which are whole steps.
    const std::vector<double> radii = places(t, "p99");
    const auto both = [&, &of_task = t](double radius, bool per_norm) {
      const double nearest = *std::min_element(radii.begin(), radii.end(), [&](double a, double b) {
        return std::abs(a - radius) < std::abs(b - radius);
      });
      char text[60];
      std::snprintf(text, sizeof text, "%.3g / %.3g",
                    steepness(of_task, "p99", topk, "fine", seed, nearest, per_norm),
                    steepness(of_task, "p99", full, "fine", seed, nearest, per_norm));
      return std::string(text);
    };
    table += str("| ", name, " | ", both(0.1, false), " | ", both(0.35, false), " | ",
                 both(0.69, false), " | ", both(0.35, true), " |\n");
  }
  std::string why_not;
  const std::filesystem::path folder = out.options().out / "paper";
  std::filesystem::create_directories(folder);
  for (const auto& [task, figure] : figures)
    if (!write_figure(figure, folder / ("surfaces-" + task + ".svg"), &why_not))
      std::cout << why_not << "\n";
  return table;
}

// Figures, tables and verdict, from the folder's measured.csv and maps.csv.
inline void tell_paper_scale(Lesson& out, const std::filesystem::path& folder) {
  Tables by_task, fine, lines;
  for (PaperRow& row : read_paper_rows(folder)) {
    Tables& tables = row.m.state == "fine" ? fine : row.m.state == "line" ? lines : by_task;
    tables[row.activation == "relu" ? row.task : row.task + ", " + row.activation].push_back(
        std::move(row.m));
  }
  Figure figure{
      "The paper's size: how steep the loss is around full attention and the five best keys"};
  figure.columns = 3;
  figure.caption =
      "41 x 41 points (step 0.05), 500 training rows; medians and ranges of the training seeds "
      "with which both have learnt; a seed's number is the median of its pairs of directions.";
  std::string table =
      "| task | around | 99th percentile within 0.35 per step, topk(5) / full, by training seed "
      "(in brackets: does not count) | topk(5) lower | per length of the weights |\n"
      "|---|---|---|---|---|\n";
  bool all = true;
  int tasks_that_count = 0;
  std::string reason;
  for (const auto& [task, t] : by_task) {
    std::vector<uint64_t> seeds;
    for (uint64_t seed : seeds_of(t, "last"))
      if (counts(t, seed)) seeds.push_back(seed);
    const bool judged = std::find(std::begin(judged_tasks), std::end(judged_tasks), task) !=
                            std::end(judged_tasks) &&
                        seeds.size() >= 3;
    tasks_that_count += judged;
    const OfState last = tell_state(t, task, "last"), matched = tell_state(t, task, "matched");
    table += last.row + (seeds_of(t, "matched").empty() ? "" : matched.row);
    reason += str(reason.empty() ? "" : "; ", task, judged ? "" : " (not judged)", ": ", last.lower,
                  " of ", last.seeds, " seeds around the last weights, ", last.lower_per_norm,
                  " per length of the weights, ", matched.lower_per_norm, " of ", matched.seeds,
                  " at equal training loss");
    if (judged)
      all = all && last.lower == last.seeds && last.lower_per_norm == last.seeds &&
            matched.seeds > 0 && matched.lower_per_norm == matched.seeds;
    if (seeds.empty()) continue;
    figure.panels.push_back(by_radius(t, seeds, task + ": last weights", false, "last"));
    figure.panels.push_back(by_radius(t, seeds, "per length of the weights", true, "last"));
    figure.panels.push_back(by_radius(t, seeds, "at " + equal_loss(task), true, "matched"));
    for (size_t p = figure.panels.size() - 3; p < figure.panels.size(); ++p)
      figure.panels[p].y_range = Interval{0.001, 100};
  }
  for (const auto& [task, t] : lines) figure.panels.push_back(zoom_panel(t, task));
  table += tell_fine(out, fine);
  out.paper_scale(figure, table, all && tasks_that_count > 0,
                  "topk(5) is the less steep within 0.35 with these training seeds: " + reason);
}

// Of the models that are still there: the training seed of the paper's surfaces.
inline void zoom_in_on_models(const std::filesystem::path& models, std::vector<PaperRow>& rows) {
  if (!std::filesystem::is_directory(models)) return;
  for (const std::string task : {"even-pairs", "missing-duplicate", "parity"})
    for (const std::string activation : {"relu", "gelu"})
      for (const std::string mechanism : {"full", "topk"})
        for (const std::string alone : {"", ".140439608"}) {
          const std::filesystem::path file = models /
                                             (task + "." + activation + "." + mechanism + alone) /
                                             "seed-140439608" / "last.safetensors";
          if (std::filesystem::exists(file)) zoom_in(file, task, activation, verdict_radius, rows);
        }
}

// The surfaces that paper.sh left in the output folder become the table.
inline int read_what_paper_sh_made(Lesson& out) {
  const std::filesystem::path made = out.options().out / "surfaces";
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_directory(made))
    for (const auto& entry : std::filesystem::directory_iterator(made))
      if (entry.path().extension() == ".json") files.push_back(entry.path());
  if (files.empty())
    fail_input(made.string(), " holds no surfaces: run lessons/13-loss-surface/paper.sh ",
               out.options().out.string(),
               " first, on a machine with a GPU; what is recorded is in ",
               (out.recorded() / "paper").string());
  std::sort(files.begin(), files.end());
  std::vector<PaperRow> rows;
  for (const std::filesystem::path& file : files) read_surfaces(file, rows);
  zoom_in_on_models(out.options().out / "models", rows);
  const PaperTables tables = tables_of(rows);
  const std::string by = "lessons/13-loss-surface/paper.sh";
  out.write_into("lesson-13");
  std::filesystem::create_directories(out.options().out / "paper");
  out.table_of(made, by, paper_columns, tables.measured, "paper/measured.csv");
  out.table_of(made, by, map_columns, tables.maps, "paper/maps.csv");
  tell_paper_scale(out, out.options().out / "paper");
  return 0;
}

}  // namespace focus
