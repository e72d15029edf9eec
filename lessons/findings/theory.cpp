// Lessons 13 and 14, which measure at the paper's size with scripts of their own.
#include <algorithm>

#include "files/atomic_file.h"
#include "files/rows.h"
#include "page.h"

namespace focus::findings {

namespace {

// A part of such a script, and its minutes on one H200 beside those of the training.
struct Part {
  std::string name, task, activation;
  double minutes;
};

// Both mechanisms: one seed, which takes two fifths of the time of ten, or ten at once; of list
// operations `seeds`, one after the other.
double training_minutes(const std::string& task, int seeds) {
  RunSettings full = RunSettings::defaults_for(find_task(task)), topk = full;
  full.attention = Pattern::full, topk.attention = Pattern::topk;
  const double share = task == "list-operations" ? seeds / 10.0 : seeds == 1 ? 0.4 : 1;
  return share * (gpu_minutes(full, 10) + gpu_minutes(topk, 10));
}

// ms: a point on 5000 rows of length 40, 3xTF32 (float32 where there are 41 x 41); on 500 of length
// 600 full attention and top-5, float32, as cuda/results/evaluation_h200.csv has them.
std::vector<Part> surface_parts() {
  constexpr double ms = 2.5, ms_fine = 1.55, ms_long = 20 + 10, fine = 200 * 200, coarse = 41 * 41;
  std::vector<Part> parts;
  for (const char* activation : {"relu", "gelu"})
    for (const std::string task :
         {"even-pairs", "missing-duplicate", "parity", "list-operations"}) {
      const bool is_long = task == "list-operations";
      if (activation == std::string("relu")) {
        // Five seeds and directions on 500 rows, or three and two; around two states.
        const double points = 2 * coarse * (is_long ? 6 * ms_long : 25 * 2 * ms / 10);
        parts.push_back({str(task, ".relu.seeds"), task, "relu", points / 60e3});
      }
      parts.push_back({str(task, ".", activation, ".fine"), task, activation,
                       fine * (is_long ? ms_long : 2 * ms_fine) / 60e3});
    }
  return parts;
}

// The different beginnings of a table's rows: their cells `columns`, joined by points.
std::vector<std::string> beginnings(const fs::path& file, size_t all_columns,
                                    const std::vector<size_t>& columns) {
  std::vector<std::string> all;
  if (!fs::exists(file)) return all;
  for (const auto& cells : read_rows(file, all_columns)) {
    std::string name;
    for (size_t column : columns) name += (name.empty() ? "" : ".") + cells[column];
    if (std::find(all.begin(), all.end(), name) == all.end()) all.push_back(name);
  }
  return all;
}

}  // namespace

void theory(Page& page) {
  const fs::path lessons = "lessons", surfaces = lessons / "13-loss-surface",
                 conditions = lessons / "14-conditions";
  page.claims.push_back({"F8", "a smoother loss surface around a top-k solution", "5, 23–27",
                         verdict_of(surfaces, "13")});
  page.claims.push_back(
      {"F9, F10", "a less stable softmax, a worse bound; fixed masks do not shrink the dispersion",
       "text", "lessons 01, 02 and 04, at laptop scale"});
  page.claims.push_back({"F11, F12", "conditions under which top-k improves the bounds",
                         "21–22, table 6", verdict_of(conditions, "14")});

  std::vector<Part> parts;
  const auto measured =
      beginnings(surfaces / "results/paper/measured.csv", 9, {0, 1, 4});  // task, activation, state
  const auto has = [](const std::vector<std::string>& all, const std::string& name) {
    return std::find(all.begin(), all.end(), name) != all.end();
  };
  std::string rows;
  double total = 0;
  const auto add = [&](const std::string& what, const std::string& command, double minutes) {
    total += minutes;
    rows += str("| ", what, " | `", command, "` | ", format("%.1f", minutes), " |\n");
  };
  for (const Part& p : surface_parts()) {
    const bool fine = p.name.ends_with("fine");
    if (has(measured, str(p.task, ".", p.activation, fine ? ".fine" : ".last"))) continue;
    const int seeds = p.task == "list-operations" ? 3 : 5;
    add(str(p.task, ", ", p.activation, fine ? ", 200 x 200" : str(", 41 x 41, ", seeds, " seeds")),
        "lessons/13-loss-surface/paper.sh OUT " + p.name,
        p.minutes + training_minutes(p.task, fine ? 1 : seeds));
  }
  const auto in_table = beginnings(conditions / "results/paper/measured.csv", 10, {0});
  for (const Task& task : all_tasks())
    if (!has(in_table, task.name))
      add(str(task.name, ", table 6, ", task.name == "list-operations" ? 3 : 10, " seeds"),
          "lessons/14-conditions/paper.sh OUT " + task.name, 0.3 + training_minutes(task.name, 3));
  page.body += "## The loss surface and the conditions (lessons 13 and 14)\n\n";
  for (const fs::path& lesson : {surfaces, conditions}) {
    const fs::path recorded = lesson / "results/paper";
    if (!fs::exists(recorded / "table.md")) continue;
    const std::string from_here = fs::relative(recorded, lessons).string();
    page.body += str("![", lesson.filename().string(), "](", from_here, "/figure.svg)\n\n",
                     read_file(recorded / "table.md", 1 << 16), "\n");
    for (const Task& task : all_tasks())
      if (const std::string picture = "surfaces-" + task.name + ".svg";
          fs::exists(recorded / picture))
        page.body += str("![", task.name, ", 200 x 200 points](", from_here, "/", picture, ")\n\n");
  }
  if (rows.empty()) return;
  page.body += str(
      "Not run, with an estimate in minutes of one H200, training included: ",
      format("%.0f", total),
      " minutes in all, less where two parts share their models in one OUT. Then `build/lesson-13 "
      "--scale paper --out OUT`, likewise lesson 14, makes table, figure and verdict in "
      "OUT/lesson-13/paper.\n\n"
      "| what | command | minutes |\n|---|---|---|\n",
      rows, "\n");
}

}  // namespace focus::findings
