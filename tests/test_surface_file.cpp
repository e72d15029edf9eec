// Directions and surfaces as files, and what is wrong with them.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <functional>

#include "analysis/surface_file.h"
#include "files/atomic_file.h"
#include "lessons/13-loss-surface/at_paper_scale.h"
#include "theory_golden.h"

using namespace focus;
using namespace focus::test;

namespace {

std::string message(const std::function<void()>& work) {
  try {
    work();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

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
  const auto one = nlohmann::json::parse(surface_json({surface}, {{"a", "topk(5)", 1.5}}, 9));
  CHECK(one.at("attention") == "topk(5)");
  CHECK(one.at("norm") == 1.5);
  CHECK(one.at("grid") == 2);
  CHECK(one.at("range") == 0.5);
  CHECK(one.at("samples") == 9);
  CHECK(one.at("axis") == std::vector<double>{-0.5, 0.5});
  CHECK(one.at("losses")[1][0].get<double>() == 2.0 / 3);
  CHECK(one.at("accuracies")[0][1] == 25);
  surface.points[1]->loss = HUGE_VAL;
  const auto two = nlohmann::json::parse(
      surface_json({surface, surface}, {{"a", "full", 1}, {"b", "full", 1}}, 9));
  CHECK(two.at(1).at("checkpoint") == "b");
  CHECK(two.at(0).at("losses")[0][1].is_null());
}

TEST_CASE("surface: lesson 13 reads a surface's file and needs no checkpoint") {
  Surface surface(3, 0.5);  // step 0.5
  for (size_t i = 0; i < 9; ++i)
    surface.points[i] = Evaluation{i == 4 ? 0.25 : 1.0, 10 * double(i)};
  const std::string name = str("parity.gelu.last.7.1.", getpid());
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / name,
                              file = folder / "parity.gelu.last.7.1.json";
  std::filesystem::create_directory(folder);
  write_file_atomically(
      file, surface_json({surface, surface}, {{"gone", "full", 2}, {"gone too", "topk(5)", 3}}, 9));
  std::vector<PaperRow> rows;
  read_surfaces(file, rows);
  const auto value = [&](const std::string& what, const std::string& mechanism, double x) {
    for (const PaperRow& r : rows)
      if (r.task == "parity" && r.activation == "gelu" && r.m.what == what &&
          r.m.mechanism == mechanism && r.m.state == "last" && r.m.seed == 7 && r.m.x == x)
        return r.m.value;
    return std::nan("");
  };
  CHECK(value("norm", "full", 0) == 2);
  CHECK(value("norm", "topk(5)", 0) == 3);
  CHECK(value("accuracy", "topk(5)", 0) == 40);
  CHECK(value("rows", "full", 0) == 9);
  CHECK(value("p99", "full", 0.5) == 1.5);  // from the middle to its neighbours
  CHECK(value("p50", "full", 0.5) == 0);
  // Cut short, or without one of its rows: named, and no memory beyond it is read.
  const std::string whole = read_file(file, 1 << 20);
  auto without = nlohmann::json::parse(whole);
  without[1]["losses"].erase(2);
  for (const std::string& text : {whole.substr(0, whole.size() / 2), without.dump()}) {
    write_file_atomically(file, text);
    const std::string got = message([&] { read_surfaces(file, rows); });
    CHECK_MESSAGE(got.find(name.substr(0, 20)) != std::string::npos, got);
    CHECK_MESSAGE(got.find("remove it") != std::string::npos, got);
  }
  std::filesystem::remove_all(folder);
}
