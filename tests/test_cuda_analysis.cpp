// Stability and surfaces with the model on the GPU, against an independent program in double
// (tests/golden/make_theory.py).
#include <doctest/doctest.h>

#include <cmath>

#include "analysis/surface.h"
#include "cuda/device/device.h"
#include "cuda/stepper/cuda_device.h"
#include "stability_golden.h"

using namespace focus;
using namespace focus::test;

namespace {
const std::atomic<bool> no_stop{false};
}

TEST_CASE("cuda: the statistics of every pattern, with queries and keys of float32") {
  // The contract's limits for such numbers.
  constexpr Limits limits{1e-4, 1e-5, 1e-5};
  gpu::CudaDevice device;
  Workers workers;
  for (const auto& item : theory().at("stability").items()) {
    const std::string name = item.key();
    const nlohmann::json& wanted = item.value();
    const GoldenModel<double> golden(name);
    const Stability got =
        measure_stability(device, golden.model, golden.data, golden.data.rows, workers, no_stop)
            .value();
    REQUIRE(got.layers.size() == wanted.at("layers").size());
    for (size_t layer = 0; layer < got.layers.size(); ++layer)
      CHECK_MESSAGE(difference(wanted["layers"][layer], got.layers[layer], limits) == "", name,
                    ", layer ", layer);
    CHECK_MESSAGE(difference(wanted["all"], got.all, limits) == "", name);
  }
  const GoldenModel<double> golden("topk");
  const std::atomic<bool> stop{true};
  CHECK(!measure_stability(device, golden.model, golden.data, 1, workers, stop));
}

TEST_CASE("cuda: a surface's losses, of points beside each other") {
  gpu::CudaDevice device;
  for (const auto& item : theory().at("surface").items()) {
    const std::string name = item.key();
    const nlohmann::json& wanted = item.value();
    const GoldenModel<float> golden(name);
    const auto& losses = wanted.at("losses");
    const int grid = int(losses.size());
    // The formulas of make_theory.py.
    Direction X, Y;
    for (const Parameter<float>& p : golden.model.parameters()) {
      const double phase = 1 + 0.7 * double(X.size());
      std::vector<double>&x = X.emplace_back(p.value.size()), &y = Y.emplace_back(p.value.size());
      for (size_t i = 0; i < x.size(); ++i)
        x[i] = 0.1 * std::cos(phase + 0.013 * double(i)),
        y[i] = 0.1 * std::sin(phase + 0.026 * double(i));
    }
    for (const int points : {3, 5}) {  // 16 are not a multiple of them
      if (gpu::emulated() && points == 3) continue;
      Surface surface(grid, wanted.at("range"));
      const Evaluators evaluators = Evaluators::on_device(device, golden.model.settings(),
                                                          golden.data, points, Precision::fp32);
      REQUIRE(fill_surface(surface, golden.model, X, Y, evaluators, no_stop, [] {}));
      for (int a = 0; a < grid; ++a)
        for (int b = 0; b < grid; ++b) {
          const Evaluation& e = *surface.points[size_t(a * grid + b)];
          const double w = losses[size_t(a)][size_t(b)];
          CHECK_MESSAGE(std::abs(e.loss - w) <= 1e-5 * w + 1e-6, name, " at ", a, ", ", b);
          CHECK(e.accuracy ==
                doctest::Approx(wanted.at("accuracies")[size_t(a)][size_t(b)].get<double>()));
        }
    }
  }
}
