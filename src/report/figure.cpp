#include "report/figure.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <map>
#include <string_view>

namespace focus {
namespace {

bool usable(double value, bool log_scale) {
  return std::isfinite(value) && (!log_scale || value > 0);
}

// Grows to hold what it is shown.
struct Extent {
  bool log_scale;
  double lo = std::numeric_limits<double>::infinity(), hi = -lo;

  void include(double value) {
    if (!usable(value, log_scale)) return;
    lo = std::min(lo, value);
    hi = std::max(hi, value);
  }

  // With `air` times the length added at both ends, and never of length 0.
  Interval padded(double air) const {
    if (!(lo <= hi)) return log_scale ? Interval{0.1, 10} : Interval{0, 1};
    if (log_scale) {
      const double factor = hi / lo > 1 + 1e-9 ? std::pow(hi / lo, air) : 3;
      return {lo / factor, hi * factor};
    }
    const double size = std::max(std::abs(lo), std::abs(hi));
    if (hi - lo > 1e-9 * size) return {lo - air * (hi - lo), hi + air * (hi - lo)};
    const double half = size > 0 ? 0.1 * size : 1;
    return {lo - half, hi + half};
  }
};

std::optional<Interval> usable_range(const std::optional<Interval>& range, bool log_scale) {
  if (!range || !usable(range->first, log_scale) || !usable(range->second, log_scale) ||
      !(range->first < range->second)) {
    return std::nullopt;
  }
  return range;
}

}  // namespace

bool drawable(const Panel& panel, double x, double y) {
  return usable(x, panel.log_x) && usable(y, panel.log_y);
}

std::optional<int> HeatMap::band(double value) const {
  if (!std::isfinite(value)) return std::nullopt;
  const double share = (value - colours.first) / (colours.second - colours.first);
  return int(std::clamp(share, 0.0, 1.0 - 1e-12) * bands);
}

Interval x_interval(const Panel& panel) {
  if (const auto given = usable_range(panel.x_range, panel.log_x)) return *given;
  Extent extent{panel.log_x};
  for (const Series& series : panel.series) {
    for (size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i) {
      if (drawable(panel, series.x[i], series.y[i])) extent.include(series.x[i]);
    }
  }
  for (const Mark& mark : panel.vertical) extent.include(mark.at);
  return extent.padded(0.02);
}

Interval y_interval(const Panel& panel) {
  if (const auto given = usable_range(panel.y_range, panel.log_y)) return *given;
  Extent extent{panel.log_y};
  for (const Series& series : panel.series) {
    for (size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i) {
      if (!drawable(panel, series.x[i], series.y[i])) continue;
      extent.include(series.y[i]);
      if (i < series.low.size()) extent.include(series.low[i]);
      if (i < series.high.size()) extent.include(series.high[i]);
    }
  }
  for (const Mark& mark : panel.horizontal) extent.include(mark.at);
  return extent.padded(0.05);
}

std::vector<double> tick_values(Interval interval, bool log_scale, int wanted) {
  const auto [lo, hi] = interval;
  wanted = std::max(wanted, 1);
  std::vector<double> ticks;
  if (log_scale) {
    const int first = int(std::floor(std::log10(lo))), last = int(std::ceil(std::log10(hi)));
    const int decades = std::max(1, last - first);
    const int step = (decades + wanted - 1) / wanted;  // every how many decades
    for (int decade = first; decade <= last; ++decade) {
      if (decade % step != 0) continue;
      for (const double factor : {1.0, 2.0, 5.0}) {
        if (factor > 1 && 3 * decades > wanted) continue;
        const double value = factor * std::pow(10.0, decade);
        if (value >= lo * (1 - 1e-9) && value <= hi * (1 + 1e-9)) ticks.push_back(value);
      }
    }
    if (ticks.size() >= 2) return ticks;
    ticks.clear();  // less than a decade: round numbers of a linear axis serve better
  }
  const double raw = (hi - lo) / wanted, power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= raw * (1 - 1e-9)) step = factor * power;
  }
  for (double i = std::ceil(lo / step - 1e-9); i * step <= hi + 1e-9 * step; ++i) {
    ticks.push_back(i * step);
  }
  return ticks;
}

std::vector<double> x_tick_values(const Panel& panel, int wanted) {
  return panel.x_ticks.empty() ? tick_values(x_interval(panel), panel.log_x, wanted)
                               : panel.x_ticks;
}

std::vector<Look> looks_of(const std::vector<std::string>& names) {
  struct Known {
    std::string_view prefix;
    Look look;
  };
  static const Known mechanisms[] = {
      {"full", {"#0072b2", 94, 'o', 0}},    {"banded", {"#009e73", 32, '+', 0}},
      {"block", {"#cc79a7", 35, '#', 0}},   {"topk", {"#d55e00", 91, '*', 0}},
      {"top-", {"#d55e00", 91, '*', 0}},    {"bottomk", {"#e69f00", 33, 'v', 0}},
      {"bottom-", {"#e69f00", 33, 'v', 0}}, {"random", {"#56b4e9", 96, '?', 0}},
  };
  static const Look others[] = {
      {"#000000", 39, 'x', 0}, {"#0072b2", 94, 'o', 0}, {"#d55e00", 91, '*', 0},
      {"#009e73", 32, '+', 0}, {"#cc79a7", 35, '#', 0}, {"#e69f00", 33, 'v', 0},
      {"#56b4e9", 96, '%', 0}, {"#777777", 90, '=', 0},
  };
  const std::string_view spare_glyphs = "@&s^$~abcdeghijklmnpqrtuwyz";

  std::vector<Look> looks;
  std::map<std::string, Look> chosen;    // by name
  std::map<std::string_view, int> uses;  // by colour
  std::string glyphs;                    // taken
  const auto mechanism = [&](const std::string& name) -> const Look* {
    for (const Known& known : mechanisms) {
      const bool whole_word = name.size() <= known.prefix.size() || known.prefix.back() == '-' ||
                              !std::isalpha(static_cast<unsigned char>(name[known.prefix.size()]));
      if (name.starts_with(known.prefix) && whole_word) return &known.look;
    }
    return nullptr;
  };
  const auto choose = [&](const std::string& name, Look look) {
    look.repeat = uses[look.colour]++;
    for (const char spare : spare_glyphs) {
      if (glyphs.find(look.glyph) == std::string::npos) break;
      look.glyph = spare;
    }
    glyphs += look.glyph;
    chosen.emplace(name, look);
  };
  // The mechanisms first, so that no other name takes a mechanism's colour before it.
  for (const std::string& name : names) {
    const Look* look = mechanism(name);
    if (look && !chosen.contains(name)) choose(name, *look);
  }
  for (const std::string& name : names) {
    if (chosen.contains(name)) continue;
    const Look* best = &others[0];
    for (const Look& look : others) {
      if (uses[look.colour] < uses[best->colour]) best = &look;
    }
    choose(name, *best);
  }
  for (const std::string& name : names) looks.push_back(chosen.at(name));
  return looks;
}

}  // namespace focus
