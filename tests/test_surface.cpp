// The loss around trained weights, against an independent program in double
// (tests/golden/make_theory.py), and its files.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "analysis/lipschitz.h"
#include "analysis/surface.h"
#include "analysis/surface_file.h"
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

std::string message(const std::function<void()>& work) {
  try {
    work();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("surface: losses and accuracies of an independent program, along the right axes") {
  for (const auto& [name, wanted] : theory().at("surface").items()) {
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
  for (int grid : {2, 3, 20, 21, 41, 200}) {
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
    CHECK_MESSAGE(own == doctest::Approx(wanted).epsilon(1e-12), golden.model.parameters()[p].name);
    const double ratio = X[p][0] / raw[p][0];
    CHECK(X[p].back() == doctest::Approx(ratio * raw[p].back()).epsilon(1e-12));
  }
}

TEST_CASE("surface: direction files, and what is wrong with them") {
  const GoldenModel<float> golden("topk");
  const auto file_of =
      [&](const std::function<bool(Safetensors&, const Parameter<float>&)>& other) {
        Safetensors file("d.safetensors");
        for (const Parameter<float>& p : golden.model.parameters())
          if (!other || !other(file, p))
            file.add(p.name, shape64(p.shape), std::span<const float>(p.value));
        return file;
      };
  const Direction plain = read_direction(file_of({}), golden.model);
  CHECK(plain[1][2] == double(golden.model.parameters()[1].value[2]));
  const auto refused = [&](const std::function<bool(Safetensors&, const Parameter<float>&)>& other,
                           const std::string& says) {
    const Safetensors file = file_of(other);
    const std::string got = message([&] { read_direction(file, golden.model); });
    CHECK_MESSAGE(got.find("d.safetensors") != std::string::npos, got);
    CHECK_MESSAGE(got.find(says) != std::string::npos, got);
  };
  const auto only = [](const char* name, auto change) {
    return [=](Safetensors& file, const Parameter<float>& p) {
      if (p.name != name) return false;
      change(file, p);
      return true;
    };
  };
  using P = const Parameter<float>&;
  refused(only("linear.bias", [](Safetensors&, P) {}), "linear.bias");
  refused(only("linear.bias",
               [](Safetensors& f, P p) {
                 f.add(p.name, {1, p.shape[0]}, std::span<const float>(p.value));
               }),
          "linear.bias");
  refused(only("linear.bias",
               [](Safetensors& f, P p) {
                 std::vector<double> values(p.value.begin(), p.value.end());
                 values[0] = HUGE_VAL;
                 f.add(p.name, shape64(p.shape), std::span<const double>(values));
               }),
          "linear.bias");
  refused(only("linear.bias",
               [](Safetensors& f, P p) {
                 f.add(p.name, shape64(p.shape),
                       std::span<const int32_t>(std::vector<int32_t>(p.value.size(), 1)));
               }),
          "linear.bias");
  refused(only("linear.bias",
               [](Safetensors& f, P p) {
                 f.add(p.name, shape64(p.shape), std::span<const float>(p.value));
                 f.add("stray", shape64(p.shape), std::span<const float>(p.value));
               }),
          "'stray'");
}

TEST_CASE("surface: a partial file goes on, and is refused where it is not its own") {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / str("focus-surface-", ::getpid(), ".partial");
  std::vector<Surface> surfaces(2, Surface(3, 1));
  surfaces[0].points[4] = Evaluation{0.1 + 0.2, 33.333333333333336};
  surfaces[1].points[8] = Evaluation{1.0 / 3, 50};
  surfaces[1].points[0] = Evaluation{std::nan(""), 0};
  save_partial(path, "what", surfaces);
  std::vector<Surface> read(2, Surface(3, 1));
  load_partial(path, "what", read);
  CHECK(read[0].points[4]->loss == surfaces[0].points[4]->loss);
  CHECK(read[1].points[8]->accuracy == 50);
  CHECK(std::isnan(read[1].points[0]->loss));
  CHECK(read[0].done() + read[1].done() == 3);

  const std::string text = read_file(path, 1 << 20);
  const auto refused = [&](const std::string& bytes, const std::string& says,
                           const std::string& what = "what") {
    write_file_atomically(path, bytes);
    std::vector<Surface> into(2, Surface(3, 1));
    const std::string got = message([&] { load_partial(path, what, into); });
    CHECK_MESSAGE(got.find(says) != std::string::npos, got, " for ", bytes);
    CHECK(read_file(path, 1 << 20) == bytes);
  };
  refused(text, "other checkpoints", "something else");
  for (size_t size = text.find("what\n") + 5; size < text.size() - 1; ++size)
    refused(text.substr(0, size), "");  // every cut is told
  refused(text.substr(0, text.rfind("end")), "cut short");
  refused("", "not the partial file");
  refused("focus surface, partial 1\nwhat\n0 9 1 2\nend 1\n", "no point");
  refused("focus surface, partial 1\nwhat\n0 1 1 2\n0 1 1 2\nend 2\n", "line 4");
  refused("focus surface, partial 1\nwhat\n0 1 x 2\nend 1\n", "line 3");
  std::filesystem::remove(path);
}

TEST_CASE("surface: JSON has the contract's keys, and null where a loss is none") {
  Surface surface(2, 0.5);
  for (size_t i = 0; i < 4; ++i) surface.points[i] = Evaluation{double(i) / 3, 25.0 * double(i)};
  const auto one = nlohmann::json::parse(surface_json({surface}, {"a"}, 9));
  CHECK(one.at("grid") == 2);
  CHECK(one.at("range") == 0.5);
  CHECK(one.at("samples") == 9);
  CHECK(one.at("axis") == std::vector<double>{-0.5, 0.5});
  CHECK(one.at("losses")[1][0].get<double>() == 2.0 / 3);
  CHECK(one.at("accuracies")[0][1] == 25);
  surface.points[1]->loss = HUGE_VAL;
  const auto two = nlohmann::json::parse(surface_json({surface, surface}, {"a", "b"}, 9));
  CHECK(two.at(1).at("checkpoint") == "b");
  CHECK(two.at(0).at("losses")[0][1].is_null());
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
  CHECK(p.p99 == doctest::Approx(9));
  line[60] = std::nan("");
  CHECK(std::isinf(slope_percentiles(line, 11, 1, 0.2).p99));
  CHECK(std::isnan(slope_percentiles(line, 11, 1, 0.1).p50));
}
