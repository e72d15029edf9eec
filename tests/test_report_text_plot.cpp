// Axes, looks and the text plot.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "error.h"
#include "report/svg_plot.h"
#include "report/text_plot.h"

using namespace focus;

namespace {

const double inf = std::numeric_limits<double>::infinity(), nan_value = std::nan("");

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// Checks the size, and that the text is plain ASCII; returns the lines.
std::vector<std::string> plot(const Panel& panel, int width, int height) {
  const std::string text = text_plot(panel, width, height, false);
  const auto lines = lines_of(text);
  CHECK(int(lines.size()) == height);
  for (const std::string& line : lines) CHECK(int(line.size()) <= width);
  CHECK(std::all_of(text.begin(), text.end(),
                    [](char c) { return c == '\n' || (c >= ' ' && c < 127); }));
  return lines;
}

int count(const std::vector<std::string>& lines, char glyph) {
  int total = 0;
  for (const std::string& line : lines) total += int(std::count(line.begin(), line.end(), glyph));
  return total;
}

}  // namespace

TEST_CASE("figure: intervals hold what is drawn") {
  Panel panel;
  CHECK(x_interval(panel) == Interval{0, 1});
  panel.series = {{.name = "a", .x = {0, 100, 50}, .y = {1, 3, nan_value}},
                  {.name = "b", .x = {-inf, 20}, .y = {99, 2}, .low = {0, -1}, .high = {0, 9}}};
  CHECK(x_interval(panel) == Interval{-2, 102});
  CHECK(y_interval(panel) == Interval{-1.5, 9.5});
  panel.horizontal = {{19}};
  CHECK(y_interval(panel) == Interval{-2, 20});
  panel.y_range = {0, 5};
  CHECK(y_interval(panel) == Interval{0, 5});
  panel.y_range = {5, 5};  // of no use
  CHECK(y_interval(panel) == Interval{-2, 20});
  const Panel constant{.series = {{.name = "c", .x = {7}, .y = {0}}}};
  CHECK(y_interval(constant) == Interval{-1, 1});
  CHECK(x_interval(constant).first < 7);
  CHECK(x_interval(constant).second > 7);
  const Panel logarithmic{.log_y = true,
                          .series = {{.name = "c", .x = {1, 2, 3}, .y = {0, 1, 100}}}};
  CHECK(y_interval(logarithmic).first > 0.5);
  CHECK(y_interval(logarithmic).second > 100);
}

TEST_CASE("figure: ticks are round") {
  CHECK(tick_values({0, 100}, false, 5) == std::vector<double>{0, 20, 40, 60, 80, 100});
  CHECK(tick_values({-3, 41}, false, 4) == std::vector<double>{0, 20, 40});
  CHECK(tick_values({1, 10}, false, 2) == std::vector<double>{5, 10});
  CHECK(tick_values({0.5, 2000}, true, 5) == std::vector<double>{1, 10, 100, 1000});
  const auto thirds = tick_values({0.09, 0.6}, true, 6);
  REQUIRE(thirds.size() == 3);
  CHECK(thirds[1] == doctest::Approx(0.2));
  CHECK(tick_values({2.1, 2.9}, true, 4).size() >= 3);  // less than a decade
  CHECK(tick_values({1e-300, 1e300}, true, 5).size() <= 6);
}

TEST_CASE("figure: a panel's own ticks stand on its axis, in text and in gnuplot's script") {
  Panel panel{.log_x = true, .series = {{.name = "c", .x = {0.5, 4, 16}, .y = {3, 2, 1}}}};
  CHECK(x_tick_values(panel, 6) == std::vector<double>{1, 10});
  panel.x_ticks = {0.5, 4, 16};
  CHECK(x_tick_values(panel, 6) == panel.x_ticks);
  const std::string text = text_plot(panel, 60, 12, false),
                    script = gnuplot_script({.panels = {panel}}, ImageKind::svg);
  CHECK(text.find(" 16") != std::string::npos);
  CHECK(script.find("xtics nomirror scale 0.5 (0.5, 4, 16)") != std::string::npos);
}

TEST_CASE("figure: a mechanism has its own look everywhere") {
  const auto looks =
      looks_of({"topk(5)", "full", "topk(9)", "mystery", "topk(5)", "blocks", "fully"});
  CHECK(looks[0].colour == looks_of({"top-k"})[0].colour);
  CHECK(looks[1].colour == looks_of({"banded", "full, 6 blocks"})[1].colour);
  CHECK(looks[0].colour == looks[2].colour);
  CHECK(looks[2].repeat == 1);
  CHECK(looks[0].glyph != looks[2].glyph);
  CHECK(looks[4].glyph == looks[0].glyph);
  for (size_t other : {3u, 5u, 6u}) {
    CHECK(looks[other].colour != looks[0].colour);
    CHECK(looks[other].colour != looks[1].colour);
  }
  std::vector<std::string> many;
  for (int i = 0; i < 40; ++i) many.push_back(str("s", i));
  CHECK(looks_of(many).size() == 40);
}

TEST_CASE("text plot: points land where they belong") {
  Panel panel{.title = "Title",
              .x_label = "epoch",
              .y_label = "loss",
              .x_range = Interval{0, 10},
              .y_range = Interval{0, 2}};
  panel.series = {{.name = "full", .x = {0, 10, 5}, .y = {0, 2, 1}, .style = Style::points}};
  const auto lines = plot(panel, 46, 16);
  // 16 lines less title, axis, ticks, names and one legend line: 11 rows, of 41 columns each
  CHECK(lines[0].find("Title") != std::string::npos);
  CHECK(lines[11].find('o') == 5);
  CHECK(lines[1].find('o') == 45);
  CHECK(lines[6].find('o') == 25);
  CHECK(lines[11].substr(0, 5) == "  0 +");
  CHECK(lines[1].substr(0, 5) == "  2 +");
  CHECK(lines[14].find("loss over epoch") != std::string::npos);
  CHECK(lines[15] == "  o full");
  CHECK(count({lines.begin() + 1, lines.begin() + 12}, 'o') == 3);
}

TEST_CASE("text plot: lines are closed, hidden series show through") {
  Panel panel{.series = {{.name = "full", .x = {0, 10}, .y = {0, 1}},
                         {.name = "banded", .x = {0, 10}, .y = {0, 1}}}};
  const auto lines = plot(panel, 60, 14);
  for (size_t row = 1; row <= 9; ++row) {
    CHECK(lines[row].find_first_of("o+", 5) != std::string::npos);
  }
  CHECK(count(lines, 'o') > 15);
  panel.series[1].style = Style::points;
  panel.series[0].style = Style::dashed;
  CHECK(count(plot(panel, 60, 14), 'o') > 25);
}

TEST_CASE("text plot: any data is fine") {
  const std::vector<double> bad = {nan_value, inf, -inf};
  for (const bool log_scale : {false, true}) {
    Panel panel{
        .title = std::string(200, 't'), .x_label = "x", .log_x = log_scale, .log_y = log_scale};
    plot(panel, 40, 10);
    panel.series.push_back({.name = "empty"});
    panel.series.push_back({.name = "bad", .x = bad, .y = bad});
    panel.series.push_back({.name = "one", .x = {3}, .y = {4}});
    panel.series.push_back({.name = "ragged", .x = {1, 2, 3}, .y = {4}});
    panel.series.push_back({.name = "zero", .x = {0, 1}, .y = {-1, 0}});
    panel.series.push_back({.name = "huge", .x = {1e-300, 1e300}, .y = {1e300, -1e300}});
    panel.horizontal = {{nan_value, "n"}, {5, std::string(100, 'm')}};
    panel.vertical = {{-inf, "v"}, {2, "two"}};
    for (const int width : {30, 33, 80, 200}) plot(panel, width, 14);
    panel.series.resize(3);
    for (int i = 0; i < 60; ++i) panel.series.push_back({.name = str("s", i)});
    plot(panel, 40, 12);  // more legend than there is room for
    panel.x_range = Interval{1e9, 2e9};
    plot(panel, 40, 12);
  }
}

TEST_CASE("text plot: colours take no columns and always end") {
  const Panel panel{.series = {{.name = "topk(5)", .x = {0, 1, 2}, .y = {3, 1, 2}}}};
  std::string text = text_plot(panel, 50, 12, true);
  CHECK(text.find("\x1b[91m") != std::string::npos);
  for (const std::string& line : lines_of(text)) {
    const size_t on = line.rfind("\x1b["), off = line.rfind("\x1b[0m");
    CHECK(on == off);
  }
  for (size_t at; (at = text.find('\x1b')) != std::string::npos;) {
    text.erase(at, text.find('m', at) - at + 1);
  }
  CHECK(text == text_plot(panel, 50, 12, false));
}
