// Lesson 13: is the loss less steep around a trained top-k model than around one with full
// attention? README.md has the mathematics and the rule of the verdict; surroundings.h has what is
// measured around a model.
#include "report/lesson.h"

#include <iostream>
#include <map>
#include <memory>

#include "at_paper_scale.h"
#include "report/curves.h"
#include "report/share_progress.h"
#include "report/statistics.h"
#include "report/svg_plot.h"
#include "study/lesson_study.h"
#include "surroundings.h"

using namespace focus;

namespace {

constexpr double verdict_radius = 0.35;  // fixed before the first run
constexpr double matched_loss = 0.1;     // the pairs of equal training loss
constexpr double learned = 95;           // percent of the training set
constexpr const char* judged_tasks[] = {"even-pairs", "missing-duplicate",
                                        "parity"};  // paper's size

// How much is measured around each model.
struct Scale {
  int rows, last_directions, matched_directions, line_rows;
};
Scale scale_of(const LessonOptions& o) {
  if (o.demo_scale) return {25, 1, 1, 50};
  return {200, 3, 1, 100};
}
// The points around a model; the first surface of each mechanism, which is drawn, goes further out.
struct Points {
  int grid;
  double range;
  int count() const { return grid * grid; }
};
constexpr Points judged = {25, 0.6}, drawn = {41, 1};
constexpr double step = 0.05;  // of both

Points points_of(const Snapshot& at, int direction) {
  const bool is_drawn = direction == 1 && at.state == "last" && at.seed == 153476998;
  return is_drawn ? drawn : judged;
}

// --- measuring
// ------------------------------------------------------------------------------------

// One surface: percentiles of its slopes by radius, and the losses themselves of the first one.
bool measure_surface(Lesson& out, const Snapshot& at, const PaddedData& rows, int direction,
                     Measurements& to, const std::function<void()>& tick) {
  const Model<float> centre = at.model();
  Direction X = draw_direction(centre, uint64_t(direction), 0),
            Y = draw_direction(centre, uint64_t(direction), 1);
  rescale(X, centre), rescale(Y, centre);
  const auto [grid, range] = points_of(at, direction);
  Surface surface(grid, range);
  const Evaluators evaluators =
      Evaluators::on_cpu(at.settings, rows, std::max(1, out.options().threads));
  if (!fill_surface(surface, centre, X, Y, evaluators, out.stop(), tick)) return false;
  std::vector<double> losses;
  for (const auto& point : surface.points) losses.push_back(point->loss);
  for (int steps = 1; steps * step < judged.range + step / 2; ++steps) {
    const SlopePercentiles p = slope_percentiles(losses, grid, range, steps * step);
    const std::pair<const char*, double> all[] = {
        {"p50", p.p50}, {"p75", p.p75}, {"p95", p.p95}, {"p99", p.p99}};
    for (const auto& [name, value] : all)
      if (std::isfinite(value)) to.add(at.measured(name, direction, steps * step, value));
  }
  if (grid == drawn.grid)
    for (size_t i = 0; i < losses.size(); ++i)
      to.add(at.measured("map", direction, double(i), losses[i]));
  return true;
}

void measure_line(const Snapshot& at, const PaddedData& rows, Measurements& to) {
  Direction X = draw_direction(at.model(), 1, 0);
  rescale(X, at.model());
  Line line(at, X, rows);
  for (const auto& [step, slope] : zoom(line, -verdict_radius, verdict_radius, 35, 6))
    to.add(at.measured("steepest", 1, step, slope));
}

// Trains, keeps the models that are wanted, and measures around them. False if interrupted.
bool measure(Lesson& out, const Study& study, std::optional<StudyResults>& results) {
  Measurements measured;
  std::vector<Snapshot> snapshots;
  std::mutex mutex;
  const Scale scale = scale_of(out.options());
  const auto after_epoch = [&](const StudyRun& r, Run& run, const EpochMetrics& row) {
    const StudyVariant& v = study.variants[r.variant];
    const bool last = run.epochs_done() == v.settings.epochs;
    if (run.epochs_done() % 3 == 1 || last) {
      const PaddedData part = first_rows(run.data().train, scale.rows);
      measured.add({"gradient", v.name, "", run.seed(), 0, double(row.epoch),
                    gradient_norm_on(run.model(), part)});
    }
    const std::lock_guard lock(mutex);
    const bool matched = std::any_of(snapshots.begin(), snapshots.end(), [&](const Snapshot& s) {
      return s.mechanism == v.name && s.seed == run.seed() && s.state == "matched";
    });
    if (!matched && row.train_loss <= matched_loss)
      snapshots.emplace_back(v.name, "matched", run, row.train_loss);
    if (last) snapshots.emplace_back(v.name, "last", run, row.train_loss);
  };
  results = study_results(out, study, {}, after_epoch);
  if (!results) return false;

  double done = 0, all = 0;
  const auto directions = [&](const Snapshot& s) {
    return s.state == "last" ? scale.last_directions : scale.matched_directions;
  };
  for (const Snapshot& s : snapshots)
    for (int d = 1; d <= directions(s); ++d) all += points_of(s, d).count();
  std::cout << "Measuring around " << snapshots.size() << " models\n";
  {
    ShareProgress progress("surfaces");
    for (const Snapshot& s : snapshots) {
      const auto variant = std::find_if(study.variants.begin(), study.variants.end(),
                                        [&](const auto& v) { return v.name == s.mechanism; });
      const PaddedData train = make_run_data(variant->settings, s.seed)->train;
      measured.add(s.measured("epoch", 0, 0, s.epoch));
      measured.add(s.measured("train_loss", 0, 0, s.train_loss));
      measured.add(s.measured("norm", 0, 0, s.norm()));
      for (int d = 1; d <= directions(s); ++d)
        if (!measure_surface(out, s, first_rows(train, scale.rows), d, measured,
                             [&] { progress.show(++done / all); }))
          return false;
      if (s.state == "last") measure_line(s, first_rows(train, scale.line_rows), measured);
    }
  }
  out.table(measured_columns, measured.rows(), "measured.csv");
  return true;
}

// --- telling
// --------------------------------------------------------------------------------------

using Table = std::vector<Measured>;

std::vector<double> values(const Table& table, const std::string& what,
                           const std::string& mechanism, const std::string& state, uint64_t seed,
                           double x) {
  std::vector<double> all;
  for (const Measured& m : table)
    if (m.what == what && m.mechanism == mechanism && m.state == state && m.seed == seed &&
        std::abs(m.x - x) <= 1e-6 * std::abs(x))
      all.push_back(m.value);
  return all;
}

// A seed's median over directions; per step, or per step and length of the weights.
double steepness(const Table& t, const std::string& what, const std::string& mechanism,
                 const std::string& state, uint64_t seed, double radius, bool per_norm) {
  const double slope = median(values(t, what, mechanism, state, seed, radius));
  return per_norm ? slope / median(values(t, "norm", mechanism, state, seed, 0)) : slope;
}

std::vector<double> places(const Table& t, const std::string& what) {
  std::vector<double> x;
  for (const Measured& m : t)
    if (m.what == what) x.push_back(m.x);
  std::sort(x.begin(), x.end());
  x.erase(std::unique(x.begin(), x.end()), x.end());
  return x;
}

// Median and range over the seeds of what `value` gives for each.
template <class F>
Series over(const std::string& name, const std::vector<double>& x,
            const std::vector<uint64_t>& seeds, const F& value) {
  Series s{name};
  for (double at : x) {
    std::vector<double> all;
    for (uint64_t seed : seeds)
      if (const double v = value(seed, at); std::isfinite(v)) all.push_back(v);
    if (all.empty()) continue;
    s.x.push_back(at), s.y.push_back(median(all));
    s.low.push_back(quantile(all, 0)), s.high.push_back(quantile(all, 1));
  }
  return s;
}

Panel map_panel(const Table& t, const std::string& mechanism, const std::string& title,
                double up_to, Interval colours) {
  Panel panel{title, "along X", "along Y"};
  HeatMap map;
  std::vector<double> losses;
  for (const Measured& m : t)
    if (m.what == "map" && m.mechanism == mechanism) losses.push_back(m.value);
  const int points = int(std::lround(std::sqrt(double(losses.size()))));
  map.columns = map.rows = points, map.colours = colours;
  for (int b = 0; b < points; ++b)
    for (int a = 0; a < points; ++a) map.values.push_back(losses[size_t(a * points + b)]);
  panel.map = map, panel.x_range = panel.y_range = Interval{-up_to, up_to};
  return panel;
}

const std::string full = "full", topk = "topk(5)";

Interval colours_of(const Table& t) {
  double highest = 0;
  for (const Measured& m : t)
    if (m.what == "map") highest = std::max(highest, m.value);
  return {0, std::min(highest, 4.0)};
}

// The 99th percentile of slopes and, dashed, their median.
Panel by_radius(const Table& t, const std::vector<uint64_t>& seeds, const std::string& title,
                bool per_norm, const std::string& state) {
  Panel panel{title, "radius", per_norm ? "slope / length of the weights" : "slope per step"};
  Table of_state;
  for (const Measured& m : t)
    if (m.state == state) of_state.push_back(m);
  for (const std::string& m : {full, topk}) {
    panel.series.push_back(over(m, places(of_state, "p99"), seeds, [&](uint64_t seed, double r) {
      return steepness(of_state, "p99", m, state, seed, r, per_norm);
    }));
    Series half =
        over(m + ", median slope", places(of_state, "p50"), seeds, [&](uint64_t seed, double r) {
          return steepness(of_state, "p50", m, state, seed, r, per_norm);
        });
    half.low.clear(), half.high.clear(), half.style = Style::dashed;
    panel.series.push_back(half);
  }
  panel.vertical = {{verdict_radius, "verdict"}};
  panel.log_y = true;
  return panel;
}

Figure draw(const Table& t, const Study& study, const std::vector<uint64_t>& seeds) {
  const Interval colours = colours_of(t);
  Figure figure{"The loss around trained models: full attention and the five best keys"};
  figure.panels = {map_panel(t, full, "1. Loss around full", drawn.range, colours),
                   map_panel(t, topk, "2. Loss around topk(5)", drawn.range, colours)};
  for (Panel& map : figure.panels) map.map->levels = {0.1, 0.5, 1, 2, 4};
  figure.panels.push_back(by_radius(t, seeds, "3. 99th percentile of slopes, last", false, "last"));
  figure.panels.push_back(by_radius(t, seeds, "4. The same per length of weights", true, "last"));
  figure.panels.push_back(by_radius(t, seeds, "5. At equal training loss", true, "matched"));
  Panel zoomed{"6. The steepest step, zoomed in", "step", "slope"};
  Panel path{"7. Gradient before the clip, on the way", "epoch", "2-norm"};
  for (const std::string& m : {full, topk}) {
    zoomed.series.push_back(over(m, places(t, "steepest"), seeds, [&](uint64_t seed, double x) {
      return median(values(t, "steepest", m, "last", seed, x));
    }));
    path.series.push_back(over(m, places(t, "gradient"), seeds, [&](uint64_t seed, double x) {
      return median(values(t, "gradient", m, "", seed, x));
    }));
  }
  zoomed.log_x = zoomed.log_y = path.log_y = true;
  path.horizontal = {{0.5, "clip"}};
  figure.panels.push_back(zoomed), figure.panels.push_back(path);
  const RunSettings& s = study.variants[0].settings;
  figure.caption =
      str("Task ", s.task, ", length ", s.length, ", ", s.train_size, " training examples, ",
          seeds.size(), seeds.size() == 1 ? " seed" : " seeds",
          ". 1 and 2: first seed, first pair of directions; white: losses of 0.1, 0.5, 1, 2 "
          "and 4. 3 to 7: medians and ranges "
          "of the seeds; a seed's number is the median of its directions.");
  return figure;
}

// Both, seed by seed, as "2.1<3.4": the smaller of the two first where top-k is the less steep.
bool less_steep(const Table& t, const std::vector<uint64_t>& seeds, const std::string& state,
                bool per_norm, std::string& words) {
  bool all = !seeds.empty();
  for (uint64_t seed : seeds) {
    const double topk = steepness(t, "p99", "topk(5)", state, seed, verdict_radius, per_norm),
                 full = steepness(t, "p99", "full", state, seed, verdict_radius, per_norm);
    all = all && topk < full;
    char text[80];
    std::snprintf(text, sizeof text, " %.3g %s %.3g", topk, topk < full ? "<" : ">=", full);
    words += text;
  }
  return all;
}

// --- at the paper's size
// ----------------------------------------------------------------------------

std::vector<uint64_t> seeds_of(const Table& t, const std::string& state) {
  std::vector<uint64_t> seeds;
  for (const Measured& m : t)
    if (m.state == state && std::find(seeds.begin(), seeds.end(), m.seed) == seeds.end())
      seeds.push_back(m.seed);
  return seeds;
}

// Of a seed both have learnt: the rule's seeds that count.
bool counts(const Table& t, uint64_t seed) {
  const auto accuracy = [&](const std::string& m) {
    return median(values(t, "accuracy", m, "last", seed, 0));
  };
  return accuracy(full) >= learned && accuracy(topk) >= learned;
}

// A row of the table, and how many of the seeds that count have top-k as the less steep one.
struct OfState {
  std::string row;
  int seeds = 0, lower = 0, lower_per_norm = 0;
};
OfState tell_state(const Table& t, const std::string& task, const std::string& state) {
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
  told.row = str("| ", task, " | ", state == "last" ? "last weights" : "training loss 0.1", " | ",
                 numbers, " | ", told.lower, " of ", told.seeds, " | ", told.lower_per_norm, " of ",
                 told.seeds, " |\n");
  return told;
}

// Percentiles of the fine surface's slopes by radius, as the paper draws them.
Panel fine_slopes(const Table& t, uint64_t seed, const std::string& title) {
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

// Figures, tables and verdict, from the table that tell_paper_scale's caller has made.
void tell_paper_scale(Lesson& out, const std::filesystem::path& file) {
  std::map<std::string, Table> by_task, fine, lines;  // by task and activation
  for (PaperRow& row : read_paper_rows(file)) {
    auto& tables = row.m.state == "fine" ? fine : row.m.state == "line" ? lines : by_task;
    tables[row.activation == "relu" ? row.task : row.task + ", " + row.activation].push_back(
        std::move(row.m));
  }
  Figure figure{
      "The paper's size: how steep the loss is around full attention and the five best keys"};
  figure.columns = 3;
  figure.caption =
      "41 x 41 points (step 0.05), 500 training rows; medians and ranges of the training seeds "
      "with "
      "which both have learnt; a seed's number is the median of its pairs of directions.";
  std::string table =
      "| task | around | 99th percentile within 0.35 per step, topk(5) / full, by training seed "
      "(in "
      "brackets: does not count) | topk(5) lower | per length of the weights |\n"
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
    figure.panels.push_back(by_radius(t, seeds, "at equal training loss", true, "matched"));
    for (size_t p = figure.panels.size() - 3; p < figure.panels.size(); ++p)
      figure.panels[p].y_range = Interval{0.001, 100};
  }
  for (const auto& entry : lines) {
    const Table& t = entry.second;
    Panel zoomed{entry.first + ": the steepest step", "step", "slope"};
    for (const std::string& m : {full, topk})
      zoomed.series.push_back(
          over(m, places(t, "steepest"), seeds_of(t, "line"), [&](uint64_t seed, double x) {
            return median(values(t, "steepest", m, "line", seed, x));
          }));
    zoomed.log_x = zoomed.log_y = true;
    figure.panels.push_back(zoomed);
  }
  Figure surfaces{
      "The paper's picture: 200 x 200 points, one training seed, one pair of directions"};
  surfaces.columns = 3;
  surfaces.caption =
      "Every fifth point drawn, all training rows (list operations: 500), step 0.01. White: losses "
      "of 0.1, 0.5, 1, 2 and 4.";
  if (!fine.empty())
    table +=
        "\n| 200 × 200 | 99th percentile per step within 0.1, topk(5) / full | within 0.35 | "
        "within "
        "0.69 | at 0.35 per length of the weights |\n|---|---|---|---|---|\n";
  for (const auto& entry : fine) {
    const std::string& task = entry.first;
    const Table& t = entry.second;
    const uint64_t seed = t[0].seed;
    const Interval colours = colours_of(t);
    for (const std::string& m : {full, topk}) {
      surfaces.panels.push_back(map_panel(t, m, task + ": loss around " + m, 1, colours));
      surfaces.panels.back().map->levels = {0.1, 0.5, 1, 2, 4};
    }
    surfaces.panels.push_back(fine_slopes(t, seed, "slopes per step, by radius"));
    // The nearest of the radii, which are whole steps.
    const std::vector<double> radii = places(t, "p99");
    const auto both = [&](double radius, bool per_norm) {
      const double nearest = *std::min_element(radii.begin(), radii.end(), [&](double a, double b) {
        return std::abs(a - radius) < std::abs(b - radius);
      });
      char text[60];
      std::snprintf(text, sizeof text, "%.3g / %.3g",
                    steepness(t, "p99", topk, "fine", seed, nearest, per_norm),
                    steepness(t, "p99", full, "fine", seed, nearest, per_norm));
      return std::string(text);
    };
    table += str("| ", task, " | ", both(0.1, false), " | ", both(0.35, false), " | ",
                 both(0.69, false), " | ", both(0.35, true), " |\n");
  }
  if (!fine.empty()) {
    std::string why_not;
    std::filesystem::create_directories(out.options().out / "paper");
    if (!write_figure(surfaces, out.options().out / "paper/surfaces.svg", &why_not))
      std::cout << why_not << "\n";
  }
  out.paper_scale(figure, table, all && tasks_that_count > 0,
                  "topk(5) is the less steep within 0.35 with these training seeds: " + reason);
}

// Of the models that are still there: the training seed of the paper's surfaces.
void zoom_in_on_models(const std::filesystem::path& models, std::vector<PaperRow>& rows) {
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
int read_what_paper_sh_made(Lesson& out) {
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
  std::vector<std::string> lines;
  for (const PaperRow& row : rows) lines.push_back(text_of(row));
  out.write_into("lesson-13");
  std::filesystem::create_directories(out.options().out / "paper");
  out.table_of(made, "lessons/13-loss-surface/paper.sh", paper_columns, lines,
               "paper/measured.csv");
  tell_paper_scale(out, out.options().out / "paper/measured.csv");
  return 0;
}

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-13", "is the loss less steep around top-k's solution?");
  if (out.options().paper_scale) return read_what_paper_sh_made(out);
  const std::filesystem::path recorded_paper = out.recorded() / "paper/measured.csv";
  if (out.options().redraw && std::filesystem::exists(recorded_paper))
    tell_paper_scale(out, recorded_paper);
  const Study study = lesson_study(out);
  out.note("surfaces", str("25 x 25 points over [-0.6, 0.6], those drawn 41 x 41 over [-1, 1], "
                           "step 0.05, first ",
                           scale_of(out.options()).rows,
                           " training rows, directions drawn with seeds 1, 2, ..."));
  std::optional<StudyResults> results;
  if (out.options().redraw)
    results = study_results(out, study);
  else if (!measure(out, study, results))
    return out.interrupted();
  const Table table =
      read_measured((out.options().redraw ? out.recorded() : out.options().out) / "measured.csv");

  // The seeds with which both have learnt: a flat surface around a model that has not says nothing.
  std::vector<uint64_t> seeds;
  const StudiedVariant &of_full = results->variant(full), &of_topk = results->variant(topk);
  for (size_t s = 0; s < of_full.seeds.size(); ++s)
    if (std::min(of_full.curves[s].back().train_accuracy,
                 of_topk.curves[s].back().train_accuracy) >= learned)
      seeds.push_back(of_full.seeds[s]);
  if (seeds.empty())
    return out.verdict(false, "no seed with which both have learnt: nothing is compared");
  out.figure(draw(table, study, seeds));

  std::string per_step, per_norm, matched;
  const bool first = less_steep(table, seeds, "last", false, per_step);
  const bool second = less_steep(table, seeds, "last", true, per_norm);
  const bool third = less_steep(table, seeds, "matched", true, matched);
  const auto said = [](bool holds) { return holds ? "yes" : "NO"; };
  return out.verdict(
      first && second && third && seeds.size() == of_full.seeds.size(),
      str(seeds.size(), " of ", of_full.seeds.size(), " seeds compared, radius ", verdict_radius,
          ", 99th percentile, topk(5) against full; 1. last, per step: ", said(first), per_step,
          "; 2. per length of weights too: ", said(second), per_norm, "; 3. at training loss ",
          matched_loss, ": ", said(third), matched));
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
