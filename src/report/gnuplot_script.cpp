// A figure as a gnuplot script. All places are worked out here, in pixels from the top left, so
// that the picture does not depend on the fonts that gnuplot finds.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "error.h"
#include "report/gnuplot_text.h"
#include "report/svg_plot.h"

namespace focus {
namespace {

using namespace gnuplot;

constexpr int max_points = 400;

// The points to draw, at most about max_points. Of every stretch of a longer curve its lowest and
// its highest point stay, so that a single spike is not lost.
std::vector<size_t> visible_points(const Panel& panel, const Series& series) {
  std::vector<size_t> points;
  for (size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i) {
    if (drawable(panel, series.x[i], series.y[i])) points.push_back(i);
  }
  if (points.size() <= size_t{max_points}) return points;
  std::vector<size_t> kept;
  constexpr size_t stretches = max_points / 2;
  for (size_t s = 0; s < stretches; ++s) {
    const auto first = points.begin() + std::ptrdiff_t(points.size() * s / stretches);
    const auto last = points.begin() + std::ptrdiff_t(points.size() * (s + 1) / stretches);
    const auto [low, high] = std::minmax_element(
        first, last, [&](size_t a, size_t b) { return series.y[a] < series.y[b]; });
    kept.push_back(std::min(*low, *high));
    if (*low != *high) kept.push_back(std::max(*low, *high));
  }
  return kept;
}

// A line through one point would be invisible.
bool is_single_point(const Panel& panel, const Series& series) {
  return visible_points(panel, series).size() == 1;
}

// Places on the picture.
struct Layout {
  int columns, rows;
  double panel_width, panel_height, title_height, legend_height, caption_height;

  double width() const { return columns * panel_width; }
  double height() const {
    return title_height + rows * panel_height + legend_height + caption_height;
  }
  // gnuplot's screen coordinates: 0 … 1 from the bottom left.
  std::string x(double pixels) const { return number(pixels / width()); }
  std::string y(double pixels) const { return number(1 - pixels / height()); }
};

struct LegendEntry {
  const Series* series;
  Look look;
  double left = 0;  // pixels
  int row = 0;
};

constexpr double sample_width = 38, entry_gap = 26, legend_row = 24;

// Fills rows with entries and centres each row. Returns the number of rows.
int place_legend(std::vector<LegendEntry>& entries, double width) {
  int row = 0;
  for (size_t first = 0; first < entries.size(); ++row) {
    double used = -entry_gap;
    size_t end = first;
    for (; end < entries.size(); ++end) {
      const double entry = entry_gap + sample_width + text_width(entries[end].series->name);
      if (end > first && used + entry > width - 40) break;
      entries[end].left = used + entry_gap;
      entries[end].row = row;
      used += entry;
    }
    for (; first < end; ++first) entries[first].left += std::max(0.0, (width - used) / 2);
  }
  return row;
}

std::string line_style(const Series& series, const Look& look) {
  const char* dashes[] = {"1", "(5,3)", "(1.5,2.5)", "(6,3,1.5,3)"};
  const int which = (look.repeat + (series.style == Style::dashed ? 1 : 0)) % 4;
  // gnuplot's SVG keeps the dashes of the line before unless colour or width changes as well.
  return str("lw ", 2 - 0.05 * which, " dt ", dashes[which], " lc rgb '", look.colour, "'");
}

std::string point_style(const Look& look) {
  const int shapes[] = {7, 5, 9, 13};  // disc, square, triangle, diamond
  return str("pt ", shapes[look.repeat % 4], " ps 0.5 lc rgb '", look.colour, "'");
}

void add_legend(std::ostringstream& out, const std::vector<LegendEntry>& entries,
                const Layout& layout, double top) {
  for (const LegendEntry& entry : entries) {
    const std::string y = layout.y(top + legend_row * (entry.row + 0.5));
    if (entry.series->style == Style::points) {
      out << "set label '' at screen " << layout.x(entry.left + 24) << "," << y << " point "
          << point_style(entry.look) << "\n";
    } else {
      out << "set arrow from screen " << layout.x(entry.left) << "," << y << " to screen "
          << layout.x(entry.left + sample_width - 8) << "," << y << " nohead "
          << line_style(*entry.series, entry.look) << "\n";
    }
    out << "set label " << quoted(entry.series->name) << " at screen "
        << layout.x(entry.left + sample_width) << "," << y << " left\n";
  }
}

void add_ticks(std::ostringstream& out, const char* axis, Interval range, bool log_scale,
               const std::vector<double>& ticks) {
  out << (log_scale ? "set" : "unset") << " logscale " << axis << "\n"
      << "set " << axis << "range [" << number(range.first) << ":" << number(range.second) << "]\n"
      << "set " << axis << "tics nomirror scale 0.5 (";
  const char* comma = "";
  for (const double tick : ticks) {
    out << comma << number(std::abs(tick) < 1e-12 ? 0.0 : tick);
    comma = ", ";
  }
  out << ")\n";
}

// Labels of marks stand outside the axes, where no data can be: above, and on the right.
void add_marks(std::ostringstream& out, const Panel& panel) {
  const char* line = " nohead back lw 1 dt (4,4) lc rgb '#666666'\n";
  const char* label = " font ',11' tc rgb '#555555'\n";
  for (const Mark& mark : panel.horizontal) {
    if (!drawable(panel, 1, mark.at)) continue;
    const std::string at = ", first " + number(mark.at);
    out << "set arrow from graph 0" << at << " to graph 1" << at << line << "set label "
        << quoted(mark.label) << " at graph 1" << at << " left offset 0.6,0" << label;
  }
  for (const Mark& mark : panel.vertical) {
    if (!drawable(panel, mark.at, 1)) continue;
    const std::string at = "first " + number(mark.at);
    out << "set arrow from " << at << ", graph 0 to " << at << ", graph 1" << line << "set label "
        << quoted(mark.label) << " at " << at << ", graph 1 center offset 0,0.5" << label;
  }
}

void add_point_labels(std::ostringstream& out, const Panel& panel, const LegendEntry& entry) {
  const Series& one = *entry.series;
  for (size_t p = 0; p < std::min({one.labels.size(), one.x.size(), one.y.size()}); ++p)
    if (drawable(panel, one.x[p], one.y[p]))
      out << "set label " << quoted(one.labels[p]) << " at first " << number(one.x[p]) << ", first "
          << number(one.y[p]) << " left offset 0.6,0.3 font ',11' tc rgb '" << entry.look.colour
          << "'\n";
}

// gnuplot's "using" for the grid's place on an axis.
std::string map_axis(const char* index, Interval range, int points) {
  return str("(", number(range.first), "+", index, "*",
             number((range.second - range.first) / std::max(1, points - 1)), ")");
}

std::string map_places(const Panel& panel) {
  return str(map_axis("$1", x_interval(panel), panel.map->columns), ":",
             map_axis("$2", y_interval(panel), panel.map->rows), ":3");
}

// The cells of a map as few rectangles of one colour: runs in a row, joined to equal ones below.
struct Patch {
  int left, right, bottom, top, band;  // cells; right and top are the first beyond
};
std::vector<Patch> patches_of(const HeatMap& map) {
  std::vector<Patch> all, below;
  for (int row = 0; row < map.rows; ++row) {
    std::vector<Patch> here;
    const auto band = [&](int column) {
      return map.band(map.values[size_t(row) * size_t(map.columns) + size_t(column)]);
    };
    for (int left = 0, right; left < map.columns; left = right) {
      const std::optional<int> own = band(left);
      for (right = left + 1; right < map.columns && band(right) == own;) ++right;
      if (own) here.push_back({left, right, row, row + 1, *own});
    }
    for (const Patch& old : below) {
      const auto same = std::find_if(here.begin(), here.end(), [&](const Patch& p) {
        return p.left == old.left && p.right == old.right && p.band == old.band;
      });
      if (same == here.end())
        all.push_back(old);
      else
        same->bottom = old.bottom;
    }
    below = std::move(here);
  }
  all.insert(all.end(), below.begin(), below.end());
  return all;
}

void add_map(std::ostringstream& out, const Panel& panel) {
  const HeatMap& map = *panel.map;
  out << "$patches << END\n";
  // The outer cells' centres lie at the ends of the axes, which cut these cells in half.
  const auto place = [](Interval range, int points, int edge) {
    const double width = (range.second - range.first) / std::max(1, points - 1);
    return number(std::clamp(range.first + (edge - 0.5) * width, range.first, range.second));
  };
  const Interval x = x_interval(panel), y = y_interval(panel);
  for (const Patch& p : patches_of(map))
    out << place(x, map.columns, p.left) << " " << place(x, map.columns, p.right) << " "
        << place(y, map.rows, p.bottom) << " " << place(y, map.rows, p.top) << " "
        << number(map.colours.first +
                  (p.band + 0.5) / HeatMap::bands * (map.colours.second - map.colours.first))
        << "\n";
  out << "END\n";
  const auto [low, high] = map.colours;
  out << "set palette maxcolors " << HeatMap::bands
      << " defined (0 '#440154', 1 '#3b528b', 2 '#21918c', 3 '#5ec962', 4 '#fde725')\n"
      << "set cbrange [" << number(low) << ":" << number(high) << "]\nset colorbox\n";
  if (map.levels.empty()) return;
  out << "$map << END\n";
  for (int row = 0; row < map.rows; ++row) {
    for (int column = 0; column < map.columns; ++column) {
      const double value = map.values[size_t(row) * size_t(map.columns) + size_t(column)];
      out << (std::isfinite(value) ? number(value) : "NaN") << " ";
    }
    out << "\n";
  }
  out << "END\nset contour base\nset cntrparam levels discrete ";
  for (size_t i = 0; i < map.levels.size(); ++i) out << (i ? ", " : "") << number(map.levels[i]);
  out << "\nunset surface\nset table $contour\nsplot $map matrix using " << map_places(panel)
      << " with lines\nunset table\nset surface\nunset contour\n";
}

// The y axis' label lies left of the ticks' numbers, however long these are.
double left_margin(const std::vector<double>& y_ticks) {
  double margin = 72;
  for (const double tick : y_ticks) margin = std::max(margin, 42 + text_width(number(tick)));
  return margin;
}

double right_margin(const Panel& panel) {
  double margin = panel.map ? 80 : 22;
  for (const Mark& mark : panel.horizontal) margin = std::max(margin, 16 + text_width(mark.label));
  return margin;
}

void add_panel(std::ostringstream& out, const Panel& panel, const std::vector<LegendEntry>& series,
               const Layout& layout, double left, double top) {
  const Interval y_range = y_interval(panel);
  for (size_t i = 0; i < series.size(); ++i) {
    const Series& one = *series[i].series;
    out << "$data" << i << " << END\n";
    for (const size_t p : visible_points(panel, one)) {
      out << number(one.x[p]) << " " << number(one.y[p]);
      if (p < one.low.size() && p < one.high.size()) {
        const bool low = drawable(panel, one.x[p], one.low[p]);
        const bool high = drawable(panel, one.x[p], one.high[p]);
        out << " " << number(low ? one.low[p] : y_range.first) << " "
            << number(high ? one.high[p] : y_range.second);
      }
      out << "\n";
    }
    out << "END\n";
  }
  const std::vector<double> y_ticks = tick_values(y_range, panel.log_y, 6);
  const double axis_left = left + left_margin(y_ticks);
  const double axis_right = left + layout.panel_width - right_margin(panel);
  const double axis_top = top + 46, axis_bottom = top + layout.panel_height - 56;
  out << "set lmargin at screen " << layout.x(axis_left) << "\nset rmargin at screen "
      << layout.x(axis_right) << "\nset tmargin at screen " << layout.y(axis_top)
      << "\nset bmargin at screen " << layout.y(axis_bottom) << "\n";
  const double title_gap = panel.vertical.empty() ? 18 : 30;
  const std::string middle = layout.x((axis_left + axis_right) / 2);
  out << "set label " << quoted(panel.title) << " at screen " << middle << ","
      << layout.y(axis_top - title_gap) << " center font ',14'\nset label " << quoted(panel.x_label)
      << " at screen " << middle << "," << layout.y(axis_bottom + 38) << " center\nset label "
      << quoted(panel.y_label) << " at screen " << layout.x(left + 18) << ","
      << layout.y((axis_top + axis_bottom) / 2) << " center rotate by 90\n";
  add_ticks(out, "x", x_interval(panel), panel.log_x, x_tick_values(panel, 6));
  add_ticks(out, "y", y_range, panel.log_y, y_ticks);
  add_marks(out, panel);
  for (const LegendEntry& entry : series) add_point_labels(out, panel, entry);
  if (panel.map) add_map(out, panel);
  out << "plot ";
  if (panel.map)
    out << "$patches using 1:3:1:2:3:4:5 with boxxyerror fs solid noborder lc palette, ";
  if (panel.map && !panel.map->levels.empty())
    out << "$contour using 1:2 with lines lw 1 lc rgb '#ffffff', ";
  for (size_t i = 0; i < series.size(); ++i) {
    if (series[i].series->low.empty() || series[i].series->high.empty()) continue;
    out << "$data" << i << " using 1:3:4 with filledcurves fs transparent solid 0.18 noborder"
        << " lc rgb '" << series[i].look.colour << "', ";
  }
  for (size_t i = 0; i < series.size(); ++i) {
    out << "$data" << i << " using 1:2 with ";
    if (series[i].series->style == Style::points || is_single_point(panel, *series[i].series)) {
      out << "points " << point_style(series[i].look) << ", ";
    } else {
      out << "lines " << line_style(*series[i].series, series[i].look) << ", ";
    }
  }
  out << "NaN\n";  // so that a panel without data has its axes
}

}  // namespace

std::string gnuplot_script(const Figure& figure, ImageKind kind) {
  std::vector<std::string> names;
  for (const Panel& panel : figure.panels) {
    for (const Series& series : panel.series) names.push_back(series.name);
  }
  const std::vector<Look> looks = looks_of(names);
  std::vector<LegendEntry> all, legend;  // all: panel after panel; legend: each name once
  for (const Panel& panel : figure.panels) {
    for (const Series& series : panel.series) {
      all.push_back({&series, looks[all.size()]});
      const bool known = std::any_of(legend.begin(), legend.end(), [&](const LegendEntry& entry) {
        return entry.series->name == series.name;
      });
      if (!known && !series.name.empty()) legend.push_back(all.back());
    }
  }

  const int panels = std::max(1, int(figure.panels.size()));
  const int columns = std::clamp(figure.columns, 1, panels);
  Layout layout{.columns = columns,
                .rows = (panels + columns - 1) / columns,
                .panel_width = columns == 1   ? 640.0
                               : columns == 2 ? 440.0
                                              : 360.0,
                .panel_height = columns == 1 ? 380.0 : 310.0,
                .title_height = figure.title.empty() ? 6.0 : 38.0,
                .legend_height = 0,
                .caption_height = 0};
  layout.legend_height = legend_row * place_legend(legend, layout.width()) + 10;
  const std::vector<std::string> caption = wrapped(figure.caption, layout.width() - 60);
  layout.caption_height = caption.empty() ? 0 : 18.0 * double(caption.size()) + 12;

  std::ostringstream out;
  const int scale = kind == ImageKind::png ? 2 : 1;
  out << "set encoding utf8\nset terminal "
      << (kind == ImageKind::png ? "pngcairo" : "svg fixed rounded") << " noenhanced size "
      << scale * layout.width() << "," << scale * layout.height() << " background '#ffffff' font '"
      << (kind == ImageKind::png ? "Helvetica" : "Helvetica,Arial,sans-serif") << ",13'"
      << (kind == ImageKind::png ? " fontscale 2 linewidth 2 pointscale 2 dashlength 1.6" : "")
      << "\n";
  out << "unset key\nset format '%g'\nset border 3 lc rgb '#444444'\n"
      << "set grid lw 0.5 lt 1 lc rgb '#dddddd'\nset multiplot\n";
  if (!figure.title.empty()) {
    out << "set label " << quoted(figure.title) << " at screen 0.5," << layout.y(22)
        << " center font ',16'\n";
  }
  const double legend_top = layout.title_height + layout.rows * layout.panel_height;
  add_legend(out, legend, layout, legend_top);
  for (size_t i = 0; i < caption.size(); ++i) {
    out << "set label " << quoted(caption[i]) << " at screen " << layout.x(30) << ","
        << layout.y(legend_top + layout.legend_height + 10 + 18 * double(i))
        << " left font ',12' tc rgb '#444444'\n";
  }
  size_t first = 0;
  for (int i = 0; i < int(figure.panels.size()); ++i) {
    const Panel& panel = figure.panels[size_t(i)];
    const auto begin = all.begin() + std::ptrdiff_t(first);
    first += panel.series.size();
    add_panel(out, panel, {begin, begin + std::ptrdiff_t(panel.series.size())}, layout,
              i % columns * layout.panel_width,
              layout.title_height + i / columns * layout.panel_height);
    out << "unset label\nunset arrow\n";
  }
  out << "unset multiplot\n";
  return out.str();
}

}  // namespace focus
