// A training step in one launch against the CPU's model, each of many steps from the same weights.
#include <doctest/doctest.h>

#include "error.h"
#include "one_launch_run.h"
#include "report/statistics.h"

using namespace focus;
using namespace focus::test;

TEST_SUITE_BEGIN("training");  // slow: tests/run.sh runs them beside the others

namespace {

struct Errors {
  std::vector<double> loss, gradient, step;
};

// Every step from the CPU's weights, so that differences do not add up.
Errors compare(const ModelSettings& s, OptimizerKind kind, int batch, int rows) {
  std::vector<std::unique_ptr<Pair>> pairs;
  for (uint64_t seed : {11u, 12u})
    pairs.push_back(std::make_unique<Pair>(s, kind, batch, rows, seed));
  gpu::OneLaunch both(s, kind, batch, 2);
  Errors errors;
  for (int n = 0; n * batch < rows; ++n) {
    std::vector<OneLaunchRun> runs;
    for (auto& pair : pairs) pair->upload(), runs.push_back(pair->run());
    gpu::shuffle_threads(uint64_t(n));
    const auto results = both.train(runs, n, 1);
    for (size_t r = 0; r < 2; ++r) {
      Pair& pair = *pairs[r];
      const std::vector<float> before = pair.weights();
      const double loss = pair.step(n);
      REQUIRE(results[r].losses.size() == 1);
      CHECK(!results[r].failed);
      errors.loss.push_back(std::abs(double(results[r].losses[0]) - loss) / loss);
      const auto wanted = pair.flat([](const auto& p) -> const auto& { return p.gradient_value; });
      errors.gradient.push_back(
          relative_distance(pair.gradients.host(), wanted, pair.model.parameter_count()));
      std::vector<float> got = pair.parameters.host(), moved = pair.weights();
      for (size_t i = 0; i < got.size(); ++i) got[i] -= before[i], moved[i] -= before[i];
      errors.step.push_back(relative_distance(got, moved, pair.model.parameter_count()));
    }
  }
  gpu::shuffle_threads(0);
  return errors;
}

void check_errors(const std::string& what, const Errors& e) {
  INFO(str(what, ": loss ", median(e.loss), ", gradient ", median(e.gradient), ", step ",
           median(e.step)));
  CHECK(median(e.loss) <= 2e-6);
  CHECK(median(e.gradient) <= 5e-6);
  // The step is a difference of weights a thousand times its size: their last digits count.
  CHECK(median(e.step) <= 1e-3);
  for (double x : e.gradient) CHECK(x <= 0.1);
}

}  // namespace

TEST_CASE("one launch: steps as the CPU's, for every pattern") {
  struct Case {
    Pattern pattern;
    int k, length, blocks;
  };
  for (const Case& c : {Case{Pattern::full, 0, 7, 2}, Case{Pattern::full, 0, 39, 1},
                        Case{Pattern::topk, 5, 40, 2}, Case{Pattern::topk, 3, 7, 1},
                        Case{Pattern::topk, 16, 45, 1}, Case{Pattern::bottomk, 4, 13, 1},
                        Case{Pattern::banded, 5, 41, 1}, Case{Pattern::block, 9, 48, 1}})
    for (double dropout : {0.0, 0.2})
      check_errors(
          str(name_of(c.pattern), "(", c.k, "), length ", c.length, ", dropout ", dropout),
          compare(model_of(c.pattern, c.k, c.length, c.blocks, dropout), OptimizerKind::sgd, 3, 8));
}

TEST_CASE("one launch: a factor on the scores") {
  for (double scale : {0.5, 4.0})
    for (Pattern pattern : {Pattern::full, Pattern::topk, Pattern::banded}) {
      ModelSettings s = model_of(pattern, 5, 11, 2, 0.1);
      s.attention.score_scale = scale;
      check_errors(str(name_of(pattern), ", scale ", scale), compare(s, OptimizerKind::sgd, 3, 8));
    }
}

TEST_CASE("one launch: more sequences than the sum over them loads at once") {
  check_errors("batches of 15",
               compare(model_of(Pattern::full, 0, 5, 1, 0), OptimizerKind::sgd, 15, 29));
}

TEST_CASE("one launch: activations, Adam, dropout in one place only") {
  ModelSettings s = model_of(Pattern::topk, 3, 11, 2, 0.1);
  s.activation = Activation::gelu;
  check_errors("gelu", compare(s, OptimizerKind::sgd, 3, 8));
  s.activation = Activation::mish;
  check_errors("mish", compare(s, OptimizerKind::sgd, 3, 8));
  s.attention.dropout = 0;
  check_errors("no dropout on the weights", compare(s, OptimizerKind::sgd, 3, 8));
  s.dropout = 0, s.attention.dropout = 0.3;
  const Errors adam = compare(s, OptimizerKind::adam, 2, 4);
  CHECK(median(adam.loss) <= 2e-6);
  CHECK(median(adam.gradient) <= 5e-6);
}

TEST_CASE("one launch: the same bits alone, among others, in one launch or several") {
  const ModelSettings s = model_of(Pattern::topk, 5, 9, 2, 0.1);
  const auto weights_after = [&](int runs, int which, int blocks, std::vector<int> launches) {
    std::vector<std::unique_ptr<Pair>> pairs;
    std::vector<OneLaunchRun> on_device;
    for (int r = 0; r < runs; ++r) {
      pairs.push_back(std::make_unique<Pair>(s, OptimizerKind::sgd, 4, 10, uint64_t(which + r)));
      on_device.push_back(pairs.back()->run());
    }
    gpu::OneLaunch launch(s, OptimizerKind::sgd, 4, runs);
    launch.set_blocks_a_run(blocks);
    int first = 0;
    for (int steps : launches) {
      gpu::shuffle_threads(uint64_t(first + runs));
      launch.train(on_device, first, steps), first += steps;
    }
    gpu::shuffle_threads(0);
    return pairs[0]->parameters.host();
  };
  const std::vector<float> alone = weights_after(1, 5, 0, {3});
  CHECK(alone == weights_after(3, 5, 0, {3}));
  CHECK(alone == weights_after(2, 5, 1, {1, 2}));
  CHECK(alone == weights_after(1, 5, 7, {3}));  // more blocks than sequences
  // So many that two blocks share a multiprocessor of a GPU, which is another kernel.
  if (!gpu::emulated()) CHECK(alone == weights_after(80, 5, 0, {3}));
  CHECK(alone != weights_after(1, 6, 0, {3}));
}

TEST_CASE("one launch: evaluation as the CPU's") {
  for (int length : {7, 40, 45}) {
    const ModelSettings s = model_of(Pattern::topk, 5, length, 2, 0.1);
    Pair one(s, OptimizerKind::sgd, 3, 8, 21), two(s, OptimizerKind::sgd, 3, 8, 22);
    gpu::OneLaunch launch(s, OptimizerKind::sgd, 3, 2);
    const std::vector<Evaluation> got = launch.evaluate({one.run(), two.run()});
    for (size_t r = 0; r < 2; ++r) {
      Pair& pair = r == 0 ? one : two;
      PaddedData data;
      data.rows = 8, data.length = length, data.labels = pair.labels;
      data.tokens.assign(pair.tokens.begin(), pair.tokens.end());
      const auto wanted = focus::evaluate(pair.model, pair.tape, data);
      CHECK(std::abs(got[r].loss - wanted->loss) <= 2e-6 * wanted->loss);
      CHECK(got[r].accuracy == wanted->accuracy);
    }
  }
}

TEST_CASE("one launch: a run that meets a NaN stops, the one beside it goes on") {
  const ModelSettings s = model_of(Pattern::full, 0, 7, 1, 0);
  Pair bad(s, OptimizerKind::sgd, 2, 6, 1), good(s, OptimizerKind::sgd, 2, 6, 2);
  std::vector<float> weights = bad.weights();
  weights[200] = NAN;
  for (size_t i = 100; i < 448; ++i) weights[i] = NAN;  // words that surely occur
  bad.parameters.set(weights);
  gpu::OneLaunch launch(s, OptimizerKind::sgd, 2, 2);
  const auto results = launch.train({bad.run(), good.run()}, 0, 3);
  CHECK(results[0].failed);
  CHECK(results[0].losses.size() == 1);
  CHECK(!results[1].failed);
  CHECK(results[1].losses.size() == 3);
  const std::vector<float> after = bad.parameters.host();
  CHECK(after[0] == weights[0]);  // no weight was changed
}

TEST_CASE("one launch: a block that does not come ends in an error") {
  const ModelSettings s = model_of(Pattern::full, 0, 7, 1, 0);
  Pair pair(s, OptimizerKind::sgd, 2, 4, 1);
  gpu::OneLaunch launch(s, OptimizerKind::sgd, 2, 1);
  launch.leave_out_a_block(true);
  launch.set_patience(0.2);
  CHECK_THROWS_AS(launch.train({pair.run()}, 0, 2), RunError);
  launch.leave_out_a_block(false);
  CHECK(launch.train({pair.run()}, 0, 2)[0].losses.size() == 2);
}

TEST_CASE("one launch: which models do not fit, and why") {
  ModelSettings s = model_of(Pattern::topk, 5, 40, 5, 0.01);
  CHECK(gpu::one_launch_problem(s, 25) == "");
  s.attention.heads = 2;
  CHECK(gpu::one_launch_problem(s, 25) == "2 heads, not 1");
  CHECK_THROWS_AS(gpu::OneLaunch(s, OptimizerKind::sgd, 25, 1), InputError);
  s = model_of(Pattern::full, 0, 49, 5, 0.01);
  CHECK(gpu::one_launch_problem(s, 25) == "49 tokens, more than 48");
  s = model_of(Pattern::full, 0, 40, 200, 0.01);
  CHECK(gpu::one_launch_problem(s, 25).find("shared memory") != std::string::npos);
}

TEST_SUITE_END();
