// Lesson 13 at the paper's size: what paper.sh measured there with `focus surface`, as rows of a
// table.
#pragma once

#include <nlohmann/json.hpp>

#include "files/atomic_file.h"
#include "files/safetensors.h"
#include "surroundings.h"
#include "train/checkpoint.h"

namespace focus {

// A number of results/paper/measured.csv, or one of a map in maps.csv. States: "last" and "matched"
// as in surroundings.h, of 41 x 41 points; "fine": the paper's 200 x 200; "line": the steepest step
// on a line, zoomed in.
struct PaperRow {
  std::string task, activation;
  Measured m;
};
inline constexpr const char* paper_columns =
    "task,activation,what,mechanism,state,seed,direction,x,value";
// Of the 200 x 200 points' surfaces every fifth point, in a row those that share one along X.
inline constexpr const char* map_columns =
    "task,activation,mechanism,seed,direction,along_x,losses";

// One file of paper.sh: TASK.ACTIVATION.STATE.SEED.DIRECTION[.MECHANISM].json, a surface for each
// of its checkpoints, along the same Gaussian numbers.
inline void read_surfaces(const std::filesystem::path& file, std::vector<PaperRow>& to) try {
  const std::string name = file.stem().string();
  std::vector<std::string> parts;
  std::istringstream words(name);
  for (std::string word; std::getline(words, word, '.');) parts.push_back(word);
  if (parts.size() != 5 && parts.size() != 6)
    fail_input(file.string(), ": not TASK.ACTIVATION.STATE.SEED.DIRECTION[.MECHANISM].json");
  const nlohmann::json all = nlohmann::json::parse(read_file(file, 1 << 28));
  for (const nlohmann::json& surface : all.is_array() ? all : nlohmann::json::array({all})) {
    const std::string mechanism = surface.at("attention");
    const int direction = int(parse_integer(parts[4]));
    const auto add = [&](const char* what, int of_direction, double x, double value) {
      to.push_back(
          {parts[0],
           parts[1],
           {what, mechanism, parts[2], uint64_t(parse_integer(parts[3])), of_direction, x, value}});
    };
    const int grid = surface.at("grid");
    const double range = surface.at("range"), step = 2 * range / (grid - 1);
    std::vector<double> losses;
    for (const auto& row : surface.at("losses"))
      for (const auto& loss : row)
        losses.push_back(loss.is_null() ? std::nan("") : loss.get<double>());
    if (grid < 2 || losses.size() != size_t(grid) * size_t(grid))
      fail_input(file.string(), ": ", losses.size(), " losses on a grid of ", grid,
                 "; remove it, and paper.sh makes it again");
    if (direction == 1) {
      add("norm", 0, 0, surface.at("norm"));
      add("rows", 0, 0, surface.at("samples"));
      // Of these rows, at the weights themselves: an odd grid's middle.
      if (grid % 2 == 1) add("accuracy", 0, 0, surface.at("accuracies").at(grid / 2).at(grid / 2));
    }
    const bool fine = parts[2] == "fine";
    for (int steps = 1; steps * step < 0.71; ++steps) {
      const SlopePercentiles p = slope_percentiles(losses, grid, range, steps * step);
      if (!std::isfinite(p.p99)) continue;
      add("p50", direction, steps * step, p.p50), add("p99", direction, steps * step, p.p99);
      if (fine)
        add("p75", direction, steps * step, p.p75), add("p95", direction, steps * step, p.p95);
    }
    if (!fine) continue;
    for (int a = 2; a < grid; a += 5)
      for (int b = 2; b < grid; b += 5)
        add("map", direction, a * step - range, losses[size_t(a) * size_t(grid) + size_t(b)]);
  }
} catch (const nlohmann::json::exception& error) {
  fail_input(file.string(), ": not a whole surface (", error.what(),
             "); remove it, and paper.sh makes it again");
}

// The steepest step on a line around the last weights, zoomed in, for a model that paper.sh left in
// OUT/models: TASK.ACTIVATION.MECHANISM[.SEED]/seed-SEED/last.safetensors. In double, on the CPU:
// 85 losses of 100 rows.
inline void zoom_in(const std::filesystem::path& checkpoint, const std::string& task,
                    const std::string& activation, double radius, std::vector<PaperRow>& to) {
  const Safetensors weights = Safetensors::read(checkpoint);
  Model<float> model(read_model_settings(weights));
  read_weights(weights, model);
  RunSettings run = RunSettings::defaults_for(find_task(task));
  run.attention = model.settings().attention.pattern, run.k = model.settings().attention.k;
  run.length = model.settings().length;
  const std::string seed = checkpoint.parent_path().filename().string().substr(5);  // seed-S
  const Snapshot at(attention_text(run), "line", uint64_t(parse_integer(seed)), model);
  Direction X = draw_direction(model, 1, 0);
  rescale(X, model);
  const PaddedData rows = first_rows(make_run_data(run, at.seed)->train, 100);
  Line line(at, X, rows);
  for (const auto& [step, slope] : zoom(line, -radius, radius, 35, 6))
    to.push_back({task, activation, at.measured("steepest", 1, step, slope)});
}

struct PaperTables {
  std::vector<std::string> measured, maps;
};
inline PaperTables tables_of(const std::vector<PaperRow>& rows) {
  PaperTables to;
  std::string row_of_map;  // the last one, but for its losses
  for (const auto& [task, activation, m] : rows) {
    const std::string model = str(task, ",", activation, ","),
                      where = str(m.seed, ",", m.direction, ",", six_digits(m.x)),
                      value = six_digits(m.value);
    if (m.what != "map") {
      to.measured.push_back(
          str(model, m.what, ",", m.mechanism, ",", m.state, ",", where, ",", value));
    } else if (const std::string row = str(model, m.mechanism, ",", where); row == row_of_map) {
      to.maps.back() += " " + value;
    } else {
      to.maps.push_back(str(row, ",", value));
      row_of_map = row;
    }
  }
  return to;
}

// Of the folder's measured.csv and maps.csv.
inline std::vector<PaperRow> read_paper_rows(const std::filesystem::path& folder) {
  std::vector<PaperRow> all;
  for (const auto& cells : read_rows(folder / "measured.csv", std::string(paper_columns)))
    all.push_back({cells[0], cells[1], measured_of(cells, 2)});
  for (const auto& cells : read_rows(folder / "maps.csv", std::string(map_columns))) {
    std::istringstream losses(cells[6]);
    for (std::string loss; losses >> loss;)
      all.push_back({cells[0], cells[1],
                     measured_of({"map", cells[2], "fine", cells[3], cells[4], cells[5], loss})});
  }
  return all;
}

}  // namespace focus
