// Figures through gnuplot. Where it is not installed, that it is missing is what gets tested.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "error.h"
#include "files/atomic_file.h"
#include "report/svg_plot.h"

using namespace focus;
namespace fs = std::filesystem;

namespace {

Figure sample() {
  Figure figure{.title = "A title", .caption = "A caption of several words"};
  figure.panels = {Panel{.title = "left", .x_label = "epoch", .series = {{.name = "full"}}},
                   Panel{.title = "right", .log_y = true}};
  Series& series = figure.panels[0].series[0];
  for (int i = 0; i < 10000; ++i) {
    series.x.push_back(i);
    series.y.push_back(i == 4321 ? 77 : std::sin(i * 0.01));
    series.low.push_back(series.y.back() - 1);
    series.high.push_back(i == 9 ? std::nan("") : series.y.back() + 1);
  }
  figure.panels[1].series = {{.name = "full", .x = {1, 2}, .y = {1, 10}},
                             {.name = "one", .x = {1}, .y = {5}, .style = Style::points}};
  figure.panels[0].horizontal = {{0.5, "half"}};
  return figure;
}

struct Folder {
  fs::path path = fs::temp_directory_path() / str("focus-test-svg-", ::getpid());
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

size_t count(const std::string& text, const std::string& part) {
  size_t total = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++total;
  return total;
}

}  // namespace

TEST_CASE("svg: the script is small, keeps spikes, and has one legend") {
  const std::string script = gnuplot_script(sample(), ImageKind::svg);
  CHECK(count(script, "\n") < 600);
  CHECK(count(script, "\n4321 77 76 78\n") == 1);
  CHECK(count(script, "set label 'full' at screen") == 1);
  CHECK(count(script, "filledcurves") == 1);
  CHECK(count(script, "nan ") == 0);
  CHECK(script == gnuplot_script(sample(), ImageKind::svg));
  CHECK(count(gnuplot_script({}, ImageKind::png), "pngcairo") == 1);
}

TEST_CASE("svg: lines of equal height on a map") {
  // x + y on 5 x 5 points: the line at 1.5 is straight, from (0, 1.5) to (1.5, 0) on axes of 0
  // to 4.
  Panel panel{.title = "a map", .x_range = Interval{0, 4}, .y_range = Interval{0, 4}};
  panel.map = HeatMap{.columns = 5, .rows = 5, .colours = {0, 8}};
  for (int y = 0; y < 5; ++y)
    for (int x = 0; x < 5; ++x) panel.map->values.push_back(x + y);
  const auto image = [&](std::vector<double> levels) {
    panel.map->levels = std::move(levels);
    Figure figure;
    figure.panels = {panel};
    const Folder folder;
    std::string why;
    if (!write_figure(figure, folder.path / "map.svg", &why)) return std::string();
    return read_file(folder.path / "map.svg", 1 << 20);
  };
  const std::string without = image({}), one = image({1.5}), two = image({1.5, 3.5});
  if (std::system("command -v gnuplot >/dev/null 2>&1") != 0) return;
  const std::string white = "stroke='rgb(255, 255, 255)'";
  CHECK(count(without, "<path") > 0);
  CHECK(count(one, white) == count(without, white) + 1);
  CHECK(count(two, "M") == count(one, "M") + 1);  // each line begins once
  // Cells of one colour are one shape.
  panel.map->values.assign(25, 0);
  const auto shapes = count(image({}), "<polygon");
  for (int y = 0; y < 5; ++y) panel.map->values[size_t(y * 5 + 4)] = 8;
  CHECK(count(image({}), "<polygon") == shapes + 1);
  panel.map->values[7] = 8;  // in the middle of the rest: around it three shapes and a cell
  CHECK(count(image({}), "<polygon") > shapes + 3);
}

TEST_CASE("svg: text cannot become commands") {
  Figure figure;
  figure.panels = {
      Panel{.title = "it's '\nquit\n `touch x` \\ \x1b[2J", .x_label = "\xff\xc3\xa9"}};
  const std::string script = gnuplot_script(figure, ImageKind::svg);
  CHECK(count(script, "'it''s '' quit  `touch x` \\  [2J'") == 1);
  CHECK(count(script, "'\?\?\?'") == 1);
}

TEST_CASE("svg: drawn, or one calm sentence") {
  const Folder folder;
  const bool have_gnuplot = std::system("command -v gnuplot >/dev/null 2>&1") == 0;
  std::string why;
  for (const char* name : {"f.svg", "f.png"}) {
    const fs::path path = folder.path / name;
    CHECK(write_figure(sample(), path, &why) == have_gnuplot);
    if (!have_gnuplot) continue;
    const std::string image = read_file(path, 1 << 20);
    CHECK(image.size() < 300000);
    CHECK(count(image, path.extension() == ".svg" ? "</svg>" : "IEND") == 1);
    CHECK(write_figure(sample(), path, nullptr));
    CHECK(image == read_file(path, 1 << 20));
  }
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == (have_gnuplot ? 2 : 0));
  CHECK_THROWS_AS(write_figure(sample(), folder.path / "f.jpg", nullptr), InputError);
  if (have_gnuplot) {
    CHECK_THROWS_AS(write_figure(sample(), folder.path / "none" / "f.svg", nullptr), InputError);
  }

  // Without gnuplot on the path, and with one that fails.
  const char* before = std::getenv("PATH");
  const std::string saved = before ? before : "";
  ::setenv("PATH", folder.path.c_str(), 1);
  CHECK(!write_figure(sample(), folder.path / "g.svg", &why));
  CHECK(why.find("gnuplot is not installed") == 0);
  CHECK(why.find("gnuplot-nox") != std::string::npos);
  const fs::path fake = folder.path / "gnuplot";
  write_file_atomically(fake,
                        "#!/bin/sh\necho >&2\necho no such terminal >&2\necho more >&2\nexit 3\n");
  fs::permissions(fake, fs::perms::owner_all);
  CHECK(!write_figure(sample(), folder.path / "g.svg", &why));
  CHECK(why == str("gnuplot could not draw ", (folder.path / "g.svg").string(),
                   " (status 3): no such terminal"));
  ::setenv("PATH", saved.c_str(), 1);
  CHECK(!fs::exists(folder.path / "g.svg"));

  const char* temporary = std::getenv("TMPDIR");
  const std::string saved_temporary = temporary ? temporary : "";
  ::setenv("TMPDIR", (folder.path / "none").c_str(), 1);
  CHECK_THROWS_AS(write_figure(sample(), folder.path / "g.svg", &why), InputError);
  temporary ? ::setenv("TMPDIR", saved_temporary.c_str(), 1) : ::unsetenv("TMPDIR");
}
