#include "report/text_plot.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace focus {
namespace {

// Columns that UTF-8 text takes, counting every character as one.
int columns_of(std::string_view text) {
  return int(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// The first `columns` characters.
std::string cut(std::string_view text, int columns) {
  size_t end = 0;
  for (int used = 0; end < text.size(); ++end) {
    if ((text[end] & 0xC0) != 0x80 && used++ == columns) break;
  }
  return std::string(text.substr(0, end));
}

std::string number_text(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.4g", std::abs(value) < 1e-12 ? 0.0 : value);
  return text;
}

// One axis: from a value to a cell, 0 … cells-1 within the interval.
struct Scale {
  double lo, hi;
  bool log_scale;
  int cells;

  Scale(Interval interval, bool log, int count) : log_scale(log), cells(count) {
    lo = log ? std::log(interval.first) : interval.first;
    hi = log ? std::log(interval.second) : interval.second;
  }
  // May lie outside; clamped so that it fits an int.
  int cell(double value) const {
    const double share = ((log_scale ? std::log(value) : value) - lo) / (hi - lo);
    return int(std::lround(std::clamp(share, -50.0, 50.0) * (cells - 1)));
  }
  bool holds(int cell) const { return cell >= 0 && cell < cells; }
};

// The plot area. Each cell knows which series pass through it, as bits, and a background character
// for grid and marks.
struct Canvas {
  Scale x, y;
  std::vector<uint32_t> series;
  std::string back;

  Canvas(Scale x_scale, Scale y_scale)
      : x(x_scale), y(y_scale), series(size_t(x.cells * y.cells)), back(series.size(), ' ') {}

  size_t at(int column, int row) const { return size_t(row * x.cells + column); }

  void put(int column, int row, int which) {
    if (x.holds(column) && y.holds(row)) series[at(column, row)] |= 1u << (which % 32);
  }

  // A straight line in cells: one in every column if it is flat, one in every row if it is steep.
  void connect(int x0, int y0, int x1, int y1, int which, bool dashed) {
    const int steps = std::max({std::abs(x1 - x0), std::abs(y1 - y0), 1});
    for (int i = 0; i <= steps; ++i) {
      const int column = x0 + int(std::lround(double(x1 - x0) * i / steps));
      const int row = y0 + int(std::lround(double(y1 - y0) * i / steps));
      if (!dashed || (column + row) % 3 != 0) put(column, row, which);
    }
  }

  void draw(const Panel& panel, const Series& one, int which) {
    bool has_last = false;
    int last_column = 0, last_row = 0;
    for (size_t i = 0; i < std::min(one.x.size(), one.y.size()); ++i) {
      if (!drawable(panel, one.x[i], one.y[i])) continue;
      const int column = x.cell(one.x[i]), row = y.cell(one.y[i]);
      if (has_last && one.style != Style::points) {
        connect(last_column, last_row, column, row, which, one.style == Style::dashed);
      } else {
        put(column, row, which);
      }
      has_last = true;
      last_column = column;
      last_row = row;
    }
  }

  void write(int column, int row, std::string_view text) {
    for (const char c : text) {
      if (x.holds(column) && y.holds(row)) back[at(column, row)] = c;
      ++column;
    }
  }

  // The grid's nearest point in every cell, darker for larger values; '?' where there is none.
  void draw_map(const Panel& panel) {
    const HeatMap& map = *panel.map;
    for (int row = 0; row < y.cells; ++row)
      for (int column = 0; column < x.cells; ++column) {
        const auto nearest = [](int cell, int cells, int points) {
          return size_t(std::lround(double(cell) / std::max(1, cells - 1) * (points - 1)));
        };
        const size_t at_row = nearest(row, y.cells, map.rows),
                     at_column = nearest(column, x.cells, map.columns);
        const auto band = map.band(map.values[at_row * size_t(map.columns) + at_column]);
        back[at(column, row)] = band ? " .,:;i+o*%#@"[size_t(*band)] : '?';
      }
  }

  void draw_marks(const Panel& panel) {
    for (const Mark& mark : panel.horizontal) {
      if (!drawable(panel, 1, mark.at)) continue;
      const int row = y.cell(mark.at);
      for (int column = 0; column < x.cells; ++column) write(column, row, ".");
      write(x.cells - int(mark.label.size()) - 1, row, mark.label);
    }
    for (const Mark& mark : panel.vertical) {
      if (!drawable(panel, mark.at, 1)) continue;
      const int column = x.cell(mark.at);
      for (int row = 0; row < y.cells; ++row) write(column, row, ":");
      write(column + 1, y.cells - 1, mark.label);
    }
  }
};

std::string painted(const std::string& text, int ansi, bool colour) {
  return colour ? "\x1b[" + std::to_string(ansi) + "m" + text + "\x1b[0m" : text;
}

// Entries side by side, in as many lines as they need.
std::vector<std::string> legend(const Panel& panel, const std::vector<Look>& looks, int width,
                                bool colour) {
  std::vector<std::string> lines;
  int used = width;
  for (size_t i = 0; i < looks.size(); ++i) {
    if (panel.series[i].name.empty()) continue;
    const std::string entry =
        cut("  " + std::string(1, looks[i].glyph) + " " + panel.series[i].name, width);
    if (used + columns_of(entry) > width) {
      lines.emplace_back();
      used = 0;
    }
    used += columns_of(entry);
    lines.back() += painted(entry, looks[i].ansi, colour);
  }
  return lines;
}

}  // namespace

std::string text_plot(const Panel& panel, int width, int height, bool colour) {
  width = std::max(width, 30);
  height = std::max(height, 8);
  std::vector<std::string> names;
  for (const Series& series : panel.series) names.push_back(series.name);
  const std::vector<Look> looks = looks_of(names);
  std::vector<std::string> legend_lines = legend(panel, looks, width, colour);

  // Title, axis, tick labels and axis names take a line each; at least three remain for the plot.
  legend_lines.resize(size_t(std::min(int(legend_lines.size()), height - 7)));
  const int rows = height - 4 - int(legend_lines.size());

  const Interval x_range = x_interval(panel), y_range = y_interval(panel);
  const std::vector<double> y_ticks = tick_values(y_range, panel.log_y, std::max(2, rows / 3));
  int margin = 3;
  for (const double tick : y_ticks) margin = std::max(margin, int(number_text(tick).size()));
  const int columns = width - margin - 2;

  Canvas canvas({x_range, panel.log_x, columns}, {y_range, panel.log_y, rows});
  if (panel.map) canvas.draw_map(panel);
  canvas.draw_marks(panel);
  for (size_t i = 0; i < panel.series.size(); ++i) canvas.draw(panel, panel.series[i], int(i));

  std::vector<std::string> y_labels(size_t(rows), "");
  for (const double tick : y_ticks) {
    const int row = canvas.y.cell(tick);
    if (canvas.y.holds(row)) y_labels[size_t(row)] = number_text(tick);
  }

  std::string text = cut(std::string(size_t(margin + 2), ' ') + panel.title, width) + "\n";
  for (int row = rows - 1; row >= 0; --row) {
    const std::string& label = y_labels[size_t(row)];
    text += std::string(size_t(margin) - label.size(), ' ') + label + (label.empty() ? " |" : " +");
    int current = 0;  // the ANSI colour that is on
    for (int column = 0; column < columns; ++column) {
      const size_t at = canvas.at(column, row);
      std::vector<size_t> here;
      for (size_t i = 0; i < looks.size(); ++i) {
        if (canvas.series[at] >> (i % 32) & 1u) here.push_back(i);
      }
      // Two columns each: single characters that alternate are hard to tell from a pattern.
      const Look* look = here.empty() ? nullptr : &looks[here[size_t(column / 2) % here.size()]];
      const int wanted = look ? look->ansi : 0;
      if (colour && wanted != current) text += "\x1b[" + std::to_string(wanted) + "m";
      current = wanted;
      text += look ? look->glyph : canvas.back[at];
    }
    if (colour && current != 0) text += "\x1b[0m";
    text += "\n";
  }

  std::string axis(size_t(columns), '-'), tick_line(size_t(width), ' ');
  int free_from = 0;  // where the next label may begin without touching the last
  for (const double tick : x_tick_values(panel, std::max(2, columns / 10))) {
    const int column = canvas.x.cell(tick);
    const std::string label = number_text(tick);
    const int start =
        std::min(margin + 2 + column - int(label.size()) / 2, width - int(label.size()));
    if (!canvas.x.holds(column) || start < free_from) continue;
    axis[size_t(column)] = '+';
    tick_line.replace(size_t(start), label.size(), label);
    free_from = start + int(label.size()) + 1;
  }
  text += std::string(size_t(margin), ' ') + " +" + axis + "\n" + tick_line + "\n";

  std::string axes = panel.x_label;
  if (!panel.y_label.empty()) axes = panel.y_label + (axes.empty() ? "" : " over " + axes);
  axes = cut(axes, columns);
  const int indent = margin + 2 + (columns - columns_of(axes)) / 2;
  text += std::string(size_t(indent), ' ') + axes + "\n";
  for (const std::string& line : legend_lines) text += line + "\n";
  return text;
}

}  // namespace focus
