// Lesson 13's table as numbers and panels: how steep the loss is around a model, by radius.
#pragma once

#include "report/figure.h"
#include "report/statistics.h"
#include "surroundings.h"

namespace focus {

inline constexpr double verdict_radius = 0.35;  // fixed before the first run
inline constexpr double learned = 95;           // percent of the training set: a seed that counts

// The pairs of equal training loss; lessons/paper_runs.sh says why list operations have their own.
inline double matched_loss_of(const std::string& task) {
  return task.starts_with("list-operations") ? 2 : 0.1;
}

using Table = std::vector<Measured>;

inline std::vector<double> values(const Table& table, const std::string& what,
                                  const std::string& mechanism, const std::string& state,
                                  uint64_t seed, double x) {
  std::vector<double> all;
  for (const Measured& m : table)
    if (m.what == what && m.mechanism == mechanism && m.state == state && m.seed == seed &&
        std::abs(m.x - x) <= 1e-6 * std::abs(x))
      all.push_back(m.value);
  return all;
}

// A seed's median over directions; per step, or per step and length of the weights.
inline double steepness(const Table& t, const std::string& what, const std::string& mechanism,
                        const std::string& state, uint64_t seed, double radius, bool per_norm) {
  const double slope = median(values(t, what, mechanism, state, seed, radius));
  return per_norm ? slope / median(values(t, "norm", mechanism, state, seed, 0)) : slope;
}

inline std::vector<double> places(const Table& t, const std::string& what) {
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

inline Panel map_panel(const Table& t, const std::string& mechanism, const std::string& title,
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

inline const std::string full = "full", topk = "topk(5)";

inline Interval colours_of(const Table& t) {
  double highest = 0;
  for (const Measured& m : t)
    if (m.what == "map") highest = std::max(highest, m.value);
  return {0, std::min(highest, 4.0)};
}

// The 99th percentile of slopes and, dashed, their median.
inline Panel by_radius(const Table& t, const std::vector<uint64_t>& seeds, const std::string& title,
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

}  // namespace focus
