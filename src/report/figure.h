// A figure as data: panels in a grid, each with series, a band around a series, and marks. It is
// drawn as text (text_plot.h) for terminals and as SVG or PNG (svg_plot.h) for pages.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace focus {

enum class Style { line, dashed, points };

struct Series {
  std::string name = {};  // as in the legend; an empty one has no entry
  std::vector<double> x = {}, y = {};
  std::vector<double> low = {}, high = {};  // both empty, or a band around y of the same length
  Style style = Style::line;
  std::vector<std::string> labels = {};  // empty, or a word beside each point (not in text plots)
};

struct Mark {
  double at;  // in the axis's unit
  std::string label = {};
};

using Interval = std::pair<double, double>;

// A function of two variables on a grid, as bands of colour (in text plots: of characters) between
// the two ends of `colours`; what lies beyond has the last band. Values row by row, the lowest y
// first; the grid's outer points lie at the ends of the panel's ranges, which must be given.
struct HeatMap {
  int columns = 0, rows = 0;
  std::vector<double> values = {};
  Interval colours = {0, 1};
  std::vector<double> levels = {};  // lines of equal height (not in text plots)
  static constexpr int bands = 12;
  // 0 … bands-1; none where the value is not finite.
  std::optional<int> band(double value) const;
};

struct Panel {
  std::string title = {}, x_label = {}, y_label = {};
  bool log_x = false, log_y = false;
  std::optional<Interval> x_range = {}, y_range = {};  // from the data if not given
  std::vector<double> x_ticks = {};                    // round numbers if not given
  std::vector<Series> series = {};
  std::vector<Mark> horizontal = {}, vertical = {};  // thin lines across, at a y and at an x
  std::optional<HeatMap> map = {};                   // below the series
};

struct Figure {
  std::string title = {};
  std::vector<Panel> panels = {};
  int columns = 2;           // of the grid of panels
  std::string caption = {};  // below the legend, wrapped
};

// The range of a panel's axis: its own if it is given and usable, otherwise one that holds every
// drawable point, band and mark with a little air. Never empty, positive if logarithmic.
Interval x_interval(const Panel& panel);
Interval y_interval(const Panel& panel);

// Can the axes show this point? (Finite, and positive on a logarithmic axis.)
bool drawable(const Panel& panel, double x, double y);

// Round numbers for labels within an interval, about `wanted` of them (1, 2 or 5 times a power of
// ten apart; on a logarithmic axis powers of ten, and 2 and 5 times them where there is room).
std::vector<double> tick_values(Interval interval, bool log_scale, int wanted);
// The panel's own, if it has any.
std::vector<double> x_tick_values(const Panel& panel, int wanted);

// How a series looks. One mechanism has the same look in every figure: a name that begins with
// full, banded, block, topk (also top-k), bottomk or random gets that mechanism's; other names take
// the remaining looks in the order of their first appearance. The colours are Okabe and Ito's,
// which remain distinct for colour-blind readers.
struct Look {
  const char* colour;  // "#rrggbb"
  int ansi;            // a terminal's colour code for text, 30 … 97
  char glyph;
  int repeat;  // how many earlier series share the colour: choose another dash or point for it
};

// The looks of `names`, one for each, equal for equal names.
std::vector<Look> looks_of(const std::vector<std::string>& names);

}  // namespace focus
