// Lesson 13: is the loss less steep around a trained top-k model than around one with full
// attention? README.md has the mathematics and the rule of the verdict; surroundings.h has what is
// measured around a model, steepness.h what the table says, at_paper_scale.h the paper's size.
#include "report/lesson.h"

#include <iostream>

#include "at_paper_scale.h"
#include "report/share_progress.h"
#include "study/lesson_study.h"

using namespace focus;

namespace {

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
constexpr Points judged = {17, 0.4}, drawn = {41, 1};
constexpr double step = 0.05;  // of both

Points points_of(const Snapshot& at, int direction) {
  const bool is_drawn = direction == 1 && at.state == "last" && at.seed == 153476998;
  return is_drawn ? drawn : judged;
}

// --- measuring -----------------------------------------------------------------------------------

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
    if (!matched && row.train_loss <= matched_loss_of(v.settings.task))
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
      measured.add(s.measured("norm", 0, 0, norm_of(s.model())));
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

// --- telling -------------------------------------------------------------------------------------

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

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-13", "is the loss less steep around top-k's solution?");
  if (out.options().paper_scale) return read_what_paper_sh_made(out);
  const std::filesystem::path recorded_paper = out.recorded() / "paper";
  if (out.options().redraw && std::filesystem::exists(recorded_paper / "measured.csv"))
    tell_paper_scale(out, recorded_paper);
  const Study study = lesson_study(out);
  out.note("surfaces", str("17 x 17 points over [-0.4, 0.4], those drawn 41 x 41 over [-1, 1], "
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
          matched_loss_of(study.variants[0].settings.task), ": ", said(third), matched));
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
