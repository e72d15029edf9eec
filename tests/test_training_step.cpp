// Whole training steps: the same bytes for any number of threads, whatever the memory held before,
// and a loss that falls.
#include <doctest/doctest.h>

#include "model_run.h"

using namespace focus;
using namespace focus::test;

TEST_CASE_TEMPLATE("training: the same bytes for 1, 2 and 3 threads, with dropout", T, float,
                   double) {
  for (Pattern pattern : all_patterns) {
    const auto train = [&](int threads) {
      Training<T> t(medium_model(pattern, 0.1), OptimizerKind::sgd, threads);
      std::vector<T> result;
      for (int i = 0; i < 3; ++i) result.push_back(T(t.step(0.5)));
      for (const Parameter<T>& p : t.model.parameters())
        result.insert(result.end(), p.value.begin(), p.value.end());
      return result;
    };
    const std::vector<T> one = train(1);
    CHECK(train(2) == one);
    CHECK(train(3) == one);
  }
}

TEST_CASE("training: gradients do not depend on what the memory held before") {
  for (Pattern pattern : all_patterns) {
    Training<float> fresh(medium_model(pattern, 0.1), OptimizerKind::sgd, 2);
    Training<float> poisoned(medium_model(pattern, 0.1), OptimizerKind::sgd, 2);
    const size_t plenty = 1 << 21;
    float* memory = poisoned.tape.memory<float>(plenty);
    std::fill(memory, memory + plenty, std::nanf(""));
    CHECK(fresh.step(0.1) == poisoned.step(0.1));
    for (size_t p = 0; p < fresh.model.parameters().size(); ++p)
      CHECK(fresh.model.parameters()[p].value == poisoned.model.parameters()[p].value);
  }
}

TEST_CASE("training: SGD and Adam bring the loss of one batch down, for every pattern") {
  for (Pattern pattern : all_patterns)
    for (OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::adam}) {
      Training<float> t(small_model(pattern), kind, 1);
      const double first = t.step(kind == OptimizerKind::sgd ? 0.5 : 0.01);
      double last = 0;
      for (int i = 0; i < 60; ++i) last = t.step(kind == OptimizerKind::sgd ? 0.5 : 0.01);
      CHECK_MESSAGE(last < 0.5 * first, str(name_of(pattern), " ", first, " to ", last));
    }
}

TEST_CASE("training in float follows training in double") {
  // No dropout, smooth activation, no choice by score: rounding is the only difference, and five
  // steps magnify it a little. Measured 5e-8.
  for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::block}) {
    ModelSettings s = medium_model(pattern, 0);
    s.activation = Activation::gelu;
    Training<float> a(s, OptimizerKind::sgd, 1);
    Training<double> b(s, OptimizerKind::sgd, 1);
    for (int i = 0; i < 5; ++i) CHECK(std::abs(a.step(0.3) - b.step(0.3)) < 5e-7);
  }
}
