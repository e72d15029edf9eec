// Lesson 01: how far does a softmax move when its scores move? README.md has the mathematics and
// the rule of the verdict; the four measurements are in measurements.h.
#include "report/lesson.h"

#include "files/atomic_file.h"
#include "files/rows.h"
#include "measurements.h"

using namespace focus;

namespace {

// Rows of independent normal scores with standard deviation 1.
std::vector<Row> normal_rows(int seeds, int rows_per_seed, int length) {
  std::vector<Row> rows;
  for (int seed = 1; seed <= seeds; ++seed)
    for (int r = 0; r < rows_per_seed; ++r) {
      Rng rng(uint64_t(seed), Stream::analysis, uint32_t(r));
      Row& row = rows.emplace_back(length);
      for (double& score : row) score = rng.normal();
    }
  return rows;
}

// Every point of the figure.
std::vector<std::string> table_of(const Figure& figure) {
  std::vector<std::string> table;
  for (size_t p = 0; p < figure.panels.size(); ++p)
    for (const Series& s : figure.panels[p].series)
      for (size_t i = 0; i < s.x.size(); ++i)
        table.push_back(str(p + 1, ",\"", s.name, "\",", s.x[i], ",", s.y[i], ",",
                            i < s.low.size() ? str(s.low[i], ",", s.high[i]) : ","));
  return table;
}

// … and back from a file: panel,"series",x,y and, for a band, its two ends.
std::vector<Panel> panels_of(const std::filesystem::path& file) {
  std::vector<Panel> panels = empty_panels();
  for (const std::vector<std::string>& cells : read_rows(file, 6)) {
    std::vector<Series>& all = panels.at(size_t(std::stoi(cells[0]) - 1)).series;
    if (all.empty() || all.back().name != cells[1]) all.push_back({cells[1]});
    Series& series = all.back();
    series.x.push_back(std::stod(cells[2])), series.y.push_back(std::stod(cells[3]));
    if (cells[4].empty()) continue;
    series.low.push_back(std::stod(cells[4])), series.high.push_back(std::stod(cells[5]));
  }
  return panels;
}

Figure draw(std::vector<Panel> panels, size_t rows) {
  Figure figure{"How far a softmax moves when its scores move", std::move(panels)};
  for (Panel& panel : figure.panels)
    for (Series& series : panel.series) series.style = style_of(series.name);
  figure.caption =
      str("Sensitivity: how far the weights move per unit that the scores move, both "
          "in the 1-norm. Bands: quartiles of ",
          rows, " rows.");
  return figure;
}

// What the verdict looks at, a line each: name,value. The rows themselves are not recorded.
struct Named {
  const char* name;
  double Findings::*value;
};
constexpr Named findings[] = {{"largest_share", &Findings::largest_share},
                              {"least_reach", &Findings::least_reach},
                              {"growth", &Findings::growth},
                              {"largest_jump", &Findings::largest_jump},
                              {"jump_at_last", &Findings::jump_at_last},
                              {"early", &Findings::early},
                              {"missed", &Findings::missed}};

std::vector<std::string> rows_of(const Findings& found) {
  std::vector<std::string> rows;
  char value[32];  // with all digits: the rule's limits are close to 1
  for (const Named& f : findings) {
    std::snprintf(value, sizeof value, "%.17g", found.*f.value);
    rows.push_back(str(f.name, ",", value));
  }
  return rows;
}

Findings read_findings(const std::filesystem::path& file) {
  const std::string text = read_file(file, 1 << 20);
  Findings found;
  for (const Named& f : findings) {
    const size_t line = text.find(str("\n", f.name, ","));
    if (line == std::string::npos ||
        std::sscanf(text.c_str() + text.find(',', line), ",%lf", &(found.*f.value)) != 1)
      fail_input(file.string(), ": holds no ", f.name);
  }
  return found;
}

// Measures all that the figure and the verdict need; false if stopped.
bool measure(Lesson& out, const std::vector<Row>& rows) {
  Findings found;
  std::vector<Panel> panels = {worst_rows(found)};
  if (out.stop()) return false;
  panels.push_back(random_rows(rows, found));
  if (out.stop()) return false;
  panels.push_back(dispersions(rows));
  panels.push_back(ties(rows, found));
  const Figure figure = draw(std::move(panels), rows.size());
  out.table("panel,series,x,y,lower_quartile,upper_quartile", table_of(figure));
  out.table("finding,value", rows_of(found), "findings.csv");
  return true;
}

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-01", "how far does a softmax move when its scores move?", 3, 3);
  const LessonOptions& o = out.options();
  const int length = o.paper_scale ? 600 : 40, rows_per_seed = o.paper_scale ? 2000 : 400;
  out.note("seeds", str("1 to ", o.seeds));
  out.note("settings", str("rows of ", length, " normal scores, ", rows_per_seed,
                           " of each seed; k = ", k, "; double precision"));
  if (!o.redraw && !measure(out, normal_rows(o.seeds, rows_per_seed, length)))
    return out.interrupted();
  // What is shown now and what is drawn again later are the same numbers.
  const std::filesystem::path folder = o.redraw ? out.recorded() : o.out;
  const Findings found = read_findings(folder / "findings.csv");
  out.figure(draw(panels_of(folder / "results.csv"), size_t(o.seeds) * size_t(rows_per_seed)));

  // The rule, as the README states it.
  const bool bounded = found.largest_share <= 1 + 1e-6;
  const bool reached = found.least_reach >= 0.99;
  const bool grows = found.growth >= 18;
  const bool separated = found.early == 0 && found.missed == 0 && found.largest_jump <= 1 + 1e-6 &&
                         found.jump_at_last > 0.5;
  const auto said = [](bool holds) { return holds ? "yes" : "NO"; };
  return out.verdict(
      bounded && reached && grows && separated,
      str("1. every move within the bound: ", said(bounded), " (at most ", found.largest_share,
          " of it); 2. worst rows reach what is possible: ", said(reached), " (at least ",
          found.least_reach, " of it); 3. sensitivity grows like the exponential: ", said(grows),
          " (", found.growth, " times from dispersion 0 to 3); 4. separation controls top-k: ",
          said(separated), " (", found.early, " changes below half of it; jumps at most ",
          found.largest_jump, " of their bound)"));
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
