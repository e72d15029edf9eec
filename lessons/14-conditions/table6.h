// Table 6 at the paper's size: what paper.sh measured with `focus stability`, as a table, beside
// the paper's.
#pragma once

#include <nlohmann/json.hpp>

#include "prediction.h"
#include "report/figure.h"

namespace focus {

// A cell of Table 6 for one training seed; a row of results/paper/measured.csv.
struct Cell {
  std::string task;
  uint64_t seed = 0;
  int length = 0;
  Condition c = {};
};
inline constexpr const char* cell_columns =
    "task,seed,length,percentile,delta_s,delta_h,Delta_h,beta,weights,inputs";

// The paper's left sides, computed from its percentiles (they hold below 1).
struct PaperSides {
  const char* task;
  double weights[4], inputs[4];
};
inline constexpr PaperSides paper_sides[] = {
    {"list-operations", {0.970, 0.688, 0.564, 0.565}, {0.898, 0.674, 0.586, 0.612}},
    {"parity", {0.704, 0.759, 0.803, 1.220}, {0.723, 0.808, 0.862, 1.286}},
    {"even-pairs", {3.174, 1.976, 1.315, 1.799}, {3.025, 2.102, 1.424, 1.897}},
    {"missing-duplicate", {1.531, 1.088, 0.666, 1.143}, {1.529, 1.152, 0.718, 1.204}}};
inline const PaperSides* paper_of(const std::string& task) {
  for (const PaperSides& p : paper_sides)
    if (task == p.task) return &p;
  return nullptr;
}

// TASK.SEED.json of paper.sh.
inline void read_cells(const std::filesystem::path& file, std::vector<Cell>& to) try {
  const std::string name = file.stem().string();
  const size_t dot = name.find('.');
  if (dot == name.npos) fail_input(file.string(), ": not TASK.SEED.json");
  const nlohmann::json all = nlohmann::json::parse(read_file(file, 1 << 22));
  const int length = all.at("length");
  for (const nlohmann::json& row : all.at("inequalities"))
    to.push_back({name.substr(0, dot),
                  uint64_t(parse_integer(name.substr(dot + 1))),
                  length,
                  {row.at("percentile"), row.at("delta_s"), row.at("delta_h"), row.at("Delta_h"),
                   row.at("beta"), row.at("weights_lhs"), row.at("inputs_lhs")}});
} catch (const nlohmann::json::exception& error) {
  fail_input(file.string(), ": not what focus stability writes (", error.what(),
             "); remove it, and paper.sh makes it again");
}

inline std::string text_of(const Cell& cell) {
  char numbers[200];
  const Condition& c = cell.c;
  std::snprintf(numbers, sizeof numbers, ",%d,%d,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g", cell.length,
                c.percentile, c.delta_s, c.delta_h, c.separation, c.beta, c.weights, c.inputs);
  return str(cell.task, ",", cell.seed, numbers);
}

inline std::vector<Cell> read_cell_rows(const std::filesystem::path& file) {
  std::vector<Cell> all;
  for (const std::vector<std::string>& cells : focus::read_rows(file, std::string(cell_columns))) {
    const auto number = [&](size_t i) { return parse_number(cells[i]); };
    all.push_back({cells[0],
                   uint64_t(parse_integer(cells[1])),
                   int(parse_integer(cells[2])),
                   {int(parse_integer(cells[3])), number(4), number(5), number(6), number(7),
                    number(8), number(9)}});
  }
  return all;
}

// What the seeds say about one task at one percentile.
struct PooledCell {
  std::string task;
  int percentile, seeds = 0, hold_weights = 0, hold_inputs = 0, hold_capped = 0;
  double delta_s = 0, delta_h = 0, separation = 0, beta = 0;  // medians
  std::vector<double> weights = {}, inputs = {};
};

inline std::vector<PooledCell> pool(const std::vector<Cell>& cells) {
  std::vector<std::string> tasks;
  for (const Cell& c : cells)
    if (std::find(tasks.begin(), tasks.end(), c.task) == tasks.end()) tasks.push_back(c.task);
  std::vector<PooledCell> all;
  for (const std::string& task : tasks)
    for (int percentile : table_percentiles) {
      PooledCell p{task, percentile};
      std::vector<double> s, h, gap, beta;
      for (const Cell& cell : cells) {
        const Condition& c = cell.c;
        if (cell.task != task || c.percentile != percentile) continue;
        ++p.seeds, s.push_back(c.delta_s), h.push_back(c.delta_h), gap.push_back(c.separation);
        beta.push_back(c.beta), p.weights.push_back(c.weights), p.inputs.push_back(c.inputs);
        p.hold_weights += c.weights < 1, p.hold_inputs += c.inputs < 1;
        p.hold_capped += weights_hold_capped(c.delta_s, c.delta_h, c.separation, cell.length);
      }
      p.delta_s = median(s), p.delta_h = median(h), p.separation = median(gap);
      p.beta = median(beta);
      all.push_back(std::move(p));
    }
  return all;
}

inline std::string paper_table_of(const std::vector<PooledCell>& cells) {
  std::string text =
      "| task | percentile | δ_s (full) | δ_h | Δ_h | β | weights: paper | ours [range] | seeds | "
      "inputs: paper | ours [range] | seeds | capped |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  for (const PooledCell& p : cells) {
    const PaperSides* paper = paper_of(p.task);
    const size_t at =
        size_t(std::find(std::begin(table_percentiles), std::end(table_percentiles), p.percentile) -
               std::begin(table_percentiles));
    char line[400], of_paper[2][16] = {"—", "—"};
    if (paper) {
      std::snprintf(of_paper[0], 16, "%.2f", paper->weights[at]);
      std::snprintf(of_paper[1], 16, "%.2f", paper->inputs[at]);
    }
    std::snprintf(
        line, sizeof line,
        "| %s | %d | %.2f | %.2f | %.2g | %.0f | %s | %.2f [%.2f, %.2f] | %d of %d | %s | %.2f "
        "[%.2f, %.2f] | %d of %d | %d of %d |\n",
        p.task.c_str(), p.percentile, p.delta_s, p.delta_h, p.separation, p.beta, of_paper[0],
        median(p.weights), quantile(p.weights, 0), quantile(p.weights, 1), p.hold_weights, p.seeds,
        of_paper[1], median(p.inputs), quantile(p.inputs, 0), quantile(p.inputs, 1), p.hold_inputs,
        p.seeds, p.hold_capped, p.seeds);
    text += line;
  }
  return text;
}

// A panel for each task: both left sides by percentile, ours with the range of the seeds, the
// paper's dashed.
inline Figure paper_figure_of(const std::vector<PooledCell>& cells) {
  Figure figure{"Table 6 at the paper's size: the conditions hold below 1"};
  for (size_t first = 0; first < cells.size(); first += std::size(table_percentiles)) {
    Panel panel{cells[first].task, "percentile", "left side"};
    const PaperSides* paper = paper_of(panel.title);
    for (const bool weights : {true, false}) {
      Series ours{weights ? "weights' condition" : "inputs' condition"}, theirs{ours.name};
      theirs.style = Style::dashed;
      for (size_t i = 0; i < std::size(table_percentiles); ++i) {
        const PooledCell& p = cells[first + i];
        const std::vector<double>& values = weights ? p.weights : p.inputs;
        ours.x.push_back(p.percentile), ours.y.push_back(median(values));
        ours.low.push_back(quantile(values, 0)), ours.high.push_back(quantile(values, 1));
        if (!paper) continue;
        theirs.x.push_back(p.percentile);
        theirs.y.push_back(weights ? paper->weights[i] : paper->inputs[i]);
      }
      panel.series.push_back(ours);
      if (paper) panel.series.push_back(theirs);
    }
    panel.y_range = Interval{0, 3.5};
    panel.x_ticks = {75, 90, 95, 100};
    panel.horizontal = {{1, "holds below"}};
    figure.panels.push_back(panel);
  }
  figure.caption =
      "Our models of ten seeds (list operations: three), medians and ranges, on the first 1000 "
      "training rows; dashed: the paper's one seed, on the four tasks that its table has.";
  return figure;
}

}  // namespace focus
