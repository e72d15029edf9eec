// Lesson 01: how far does a softmax move when its scores move? README.md has the mathematics and
// the rule of the verdict; the four measurements are in measurements.h.
#include "report/lesson.h"

#include <sstream>

#include "files/atomic_file.h"
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
std::vector<Panel> panels_of(const std::string& table) {
  std::vector<Panel> panels = empty_panels();
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    const size_t quote = line.find('"'), end = line.rfind('"');
    if (line.starts_with('#') || quote == std::string::npos) continue;
    std::vector<Series>& all = panels.at(size_t(line[0] - '1')).series;
    const std::string name = line.substr(quote + 1, end - quote - 1);
    if (all.empty() || all.back().name != name) all.push_back({name});
    double x = 0, y = 0, low = 0, high = 0;
    const int numbers =
        std::sscanf(line.c_str() + end + 1, ",%lf,%lf,%lf,%lf", &x, &y, &low, &high);
    if (numbers < 2) fail_input("results.csv: not a point: ", line);
    all.back().x.push_back(x), all.back().y.push_back(y);
    if (numbers == 4) all.back().low.push_back(low), all.back().high.push_back(high);
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
  out.figure(draw(panels_of(read_file(folder / "results.csv", 1 << 20)),
                  size_t(o.seeds) * size_t(rows_per_seed)));

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
