// Stage 13: the loss on a plane through trained weights, against an independent program in double
// (tests/golden/make_theory.py), and how steep it is.
#include <doctest/doctest.h>

#include <cmath>

#include "analysis/lipschitz.h"
#include "analysis/surface.h"
#include "close.h"
#include "theory_golden.h"

using namespace focus;
using namespace focus::test;

namespace {

const std::atomic<bool> no_stop{false};

// The formulas of make_theory.py.
Direction wave(const Model<float>& model, double (*f)(double), int n) {
  Direction direction;
  for (const Parameter<float>& p : model.parameters()) {
    const double phase = 1 + 0.7 * double(direction.size());
    std::vector<double>& tensor = direction.emplace_back(p.value.size());
    for (size_t i = 0; i < tensor.size(); ++i) tensor[i] = 0.1 * f(phase + 0.013 * n * double(i));
  }
  return direction;
}
double cosine(double x) {
  return std::cos(x);
}
double sine(double x) {
  return std::sin(x);
}

struct Sliced : GoldenModel<float> {
  Direction X, Y;
  explicit Sliced(const std::string& name)
      : GoldenModel<float>(name), X(wave(model, cosine, 1)), Y(wave(model, sine, 2)) {}
  Surface filled(int grid, double range, int threads) const {
    Surface surface(grid, range);
    const Evaluators evaluators = Evaluators::on_cpu(model.settings(), data, threads);
    REQUIRE(fill_surface(surface, model, X, Y, evaluators, no_stop, [] {}));
    return surface;
  }
};

bool same(const Surface& a, const Surface& b) {
  for (size_t i = 0; i < a.points.size(); ++i)
    if (!a.points[i] || !b.points[i] || a.points[i]->loss != b.points[i]->loss ||
        a.points[i]->accuracy != b.points[i]->accuracy)
      return false;
  return a.points.size() == b.points.size();
}

}  // namespace

TEST_CASE("surface: losses and accuracies of an independent program, along the right axes") {
  for (const auto& item : theory().at("surface").items()) {
    const std::string name = item.key();
    const nlohmann::json& wanted = item.value();
    const auto& losses = wanted.at("losses");
    const int grid = int(losses.size());
    const Sliced slice(name);
    const Surface got = slice.filled(grid, wanted.at("range"), 1);
    for (int a = 0; a < grid; ++a) {
      CHECK(axis_coordinate(grid, got.range, a) ==
            doctest::Approx(wanted.at("axis")[size_t(a)].get<double>()).epsilon(1e-14));
      for (int b = 0; b < grid; ++b) {
        const Evaluation& e = *got.points[size_t(a * grid + b)];
        const double w = losses[size_t(a)][size_t(b)];
        CHECK_MESSAGE(std::abs(e.loss - w) <= 1e-6 * w, name, " at ", a, ", ", b);
        CHECK(e.accuracy ==
              doctest::Approx(wanted.at("accuracies")[size_t(a)][size_t(b)].get<double>()));
      }
    }
  }
}

TEST_CASE("surface: any number of threads and a pause give the same bytes") {
  const Sliced slice("topk_gelu_2heads");
  const Surface whole = slice.filled(5, 1, 1);
  CHECK(same(whole, slice.filled(5, 1, 3)));
  Surface paused(5, 1);
  std::atomic<bool> stop{false};
  const Evaluators evaluators = Evaluators::on_cpu(slice.model.settings(), slice.data, 2);
  CHECK(!fill_surface(paused, slice.model, slice.X, slice.Y, evaluators, stop,
                      [&] { stop = paused.done() >= 7; }));
  CHECK(paused.done() >= 7);
  CHECK(paused.done() < 25);
  CHECK(fill_surface(paused, slice.model, slice.X, slice.Y, evaluators, no_stop, [] {}));
  CHECK(same(whole, paused));
}

TEST_CASE("surface: the axis has both ends and equal steps, at every size") {
  for (int grid : {2, 3, 4, 13, 20, 21, 41, 200}) {
    CHECK(axis_coordinate(grid, 0.7, 0) == -0.7);
    CHECK(axis_coordinate(grid, 0.7, grid - 1) == 0.7);
    for (int a = 0; a + 1 < grid; ++a)
      CHECK(axis_coordinate(grid, 0.7, a + 1) - axis_coordinate(grid, 0.7, a) ==
            doctest::Approx(1.4 / (grid - 1)).epsilon(1e-12));
  }
  CHECK(axis_coordinate(41, 1, 20) == 0);  // an odd grid has θ itself
}

TEST_CASE("surface: directions are as long as each tensor, alike for equal shapes, never equal") {
  const GoldenModel<float> golden("topk_gelu_2heads");
  Direction X = draw_direction(golden.model, 7, 0), Y = draw_direction(golden.model, 7, 1);
  CHECK(X == draw_direction(golden.model, 7, 0));
  CHECK(X != Y);
  CHECK(X[0] != draw_direction(golden.model, 8, 0)[0]);
  double sum = 0, squares = 0;
  size_t count = 0;
  for (const auto& tensor : X)
    for (double x : tensor) sum += x, squares += x * x, ++count;
  CHECK(std::abs(sum / double(count)) < 4 / std::sqrt(double(count)));
  CHECK(std::abs(squares / double(count) - 1) < 6 / std::sqrt(double(count)));
  const Direction raw = X;
  rescale(X, golden.model);
  for (size_t p = 0; p < X.size(); ++p) {
    double own = 0, wanted = 0;
    for (double x : X[p]) own += x * x;
    for (float w : golden.model.parameters()[p].value) wanted += double(w) * double(w);
    CHECK_MESSAGE(std::abs(own - wanted) <= 1e-12 * wanted, golden.model.parameters()[p].name,
                  ": squared length: ", got_wanted(own, wanted));
    const double ratio = X[p][0] / raw[p][0];
    CHECK(X[p].back() == doctest::Approx(ratio * raw[p].back()).epsilon(1e-12));
  }
}

TEST_CASE("lipschitz: slopes of a plane, a ridge, and which points a radius holds") {
  const int grid = 5;  // -1, -0.5, 0, 0.5, 1
  std::vector<double> plane, ridge;
  for (int a = 0; a < grid; ++a)
    for (int b = 0; b < grid; ++b)
      plane.push_back(3 * (0.5 * a) + 7 * (0.5 * b)), ridge.push_back(a == 2 && b == 2 ? 1 : 0);
  const std::vector<double> all = neighbour_slopes(plane, grid, 1, 1);
  CHECK(all.size() == 2 * 5 * 4);
  CHECK(std::count(all.begin(), all.end(), 3.0) == 20);
  CHECK(std::count(all.begin(), all.end(), 7.0) == 20);
  CHECK(neighbour_slopes(plane, grid, 1, 0.5).size() == 2 * 3 * 2);
  CHECK(neighbour_slopes(plane, grid, 1, 0.49).empty());  // the centre alone
  const std::vector<double> top = neighbour_slopes(ridge, grid, 1, 0.5);
  CHECK(std::count(top.begin(), top.end(), 2.0) == 4);  // 1 / 0.5, on its four sides
  // Where a division of coordinates would lose a point: 41 points, radius 0.7 is 14 steps.
  const std::vector<double> flat(41 * 41, 0.0);
  for (int steps = 1; steps <= 20; ++steps)
    CHECK(neighbour_slopes(flat, 41, 1, 0.05 * steps).size() ==
          size_t(2 * (2 * steps + 1) * (2 * steps)));
  CHECK(neighbour_slopes(std::vector<double>(4, 0.0), 2, 1, 0.9).empty());
  CHECK(neighbour_slopes(plane, grid, 1, 9).size() == all.size());  // nothing lies beyond the grid
}

TEST_CASE("lipschitz: percentiles, and a loss that is no number is infinitely steep") {
  std::vector<double> line;  // slopes 0, 1, … 9 along X, none along Y
  double loss = 0;
  for (int a = 0; a < 11; ++a) {
    for (int b = 0; b < 11; ++b) line.push_back(loss);
    loss += a * 0.2;
  }
  const SlopePercentiles p = slope_percentiles(line, 11, 1, 1);
  CHECK(p.p50 == doctest::Approx(0));
  CHECK(p.p75 == doctest::Approx(4.25));
  CHECK(p.p95 == doctest::Approx(8.05));
  CHECK(p.p99 == doctest::Approx(9));
  line[60] = std::nan("");
  CHECK(std::isinf(slope_percentiles(line, 11, 1, 0.2).p99));
  CHECK(std::isnan(slope_percentiles(line, 11, 1, 0.1).p50));
}
