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
  const StepSettings settings{.model = s, .optimizer = kind, .batch = batch};
  RandomRuns runs(settings, rows, 11, 2);
  gpu::OneLaunch both(settings, runs.step_runs);
  Workers workers;
  Tape<float> tape(workers);
  Errors errors;
  for (int n = 0; n * batch < rows; ++n) {
    runs.load(both);
    gpu::shuffle_threads(uint64_t(n));
    const auto gradients = both.gradients(runs.epochs, n);
    const auto results = both.train(runs.epochs, n, 1, never_stop);
    for (size_t r = 0; r < 2; ++r) {
      RandomRun& run = runs.all[r];
      const std::vector<float> before = run.weights();
      RandomRun launched(settings, rows, 11 + r);
      both.store(int(r), launched.model, launched.optimizer);
      CpuStepper cpu(tape, settings, {run.step_run});
      const StepMade wanted = gpu::step_of(cpu, run, n);
      REQUIRE(results[r].losses.size() == 1);
      CHECK(!results[r].failed);
      CHECK(results[r].losses[0] == gradients[r].loss);
      errors.loss.push_back(std::abs(double(results[r].losses[0]) - wanted.loss) / wanted.loss);
      errors.gradient.push_back(relative_distance(flat(gradients[r].parameters), wanted.gradients));
      std::vector<float> got = launched.weights(), moved = wanted.weights;
      for (size_t i = 0; i < got.size(); ++i) got[i] -= before[i], moved[i] -= before[i];
      errors.step.push_back(relative_distance(got, moved));
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
    for (double dropout : {0.0, 0.2}) {
      if (gpu::emulated() && dropout == 0 && c.length > 13) continue;
      check_errors(str(name_of(c.pattern), "(", c.k, "), length ", c.length, ", dropout ", dropout),
                   compare(model_of(c.pattern, c.k, c.length, c.blocks, dropout),
                           OptimizerKind::sgd, 3, few(5, 8)));
    }
}

TEST_CASE("one launch: a factor on the scores") {
  for (double scale : {0.5, 4.0})
    for (Pattern pattern : {Pattern::full, Pattern::topk, Pattern::banded}) {
      ModelSettings s = model_of(pattern, 5, 11, few(1, 2), 0.1);
      s.attention.score_scale = scale;
      check_errors(str(name_of(pattern), ", scale ", scale),
                   compare(s, OptimizerKind::sgd, 3, few(5, 8)));
    }
}

TEST_CASE("one launch: more sequences than the sum over them loads at once") {
  check_errors("batches of 15",
               compare(model_of(Pattern::full, 0, 5, 1, 0), OptimizerKind::sgd, 15, 29));
}

TEST_CASE("one launch: activations, Adam, dropout in one place only") {
  ModelSettings s = model_of(Pattern::topk, 3, 11, few(1, 2), 0.1);
  const int rows = few(5, 8);
  s.activation = Activation::gelu;
  check_errors("gelu", compare(s, OptimizerKind::sgd, 3, rows));
  s.activation = Activation::mish;
  check_errors("mish", compare(s, OptimizerKind::sgd, 3, rows));
  s.attention.dropout = 0;
  check_errors("no dropout on the weights", compare(s, OptimizerKind::sgd, 3, rows));
  s.dropout = 0, s.attention.dropout = 0.3;
  const Errors adam = compare(s, OptimizerKind::adam, 2, 4);
  CHECK(median(adam.loss) <= 2e-6);
  CHECK(median(adam.gradient) <= 5e-6);
}

TEST_CASE("one launch: the same bits alone, among others, in one launch or several") {
  const StepSettings settings{.model = model_of(Pattern::topk, 5, 9, 2, 0.1), .batch = 4};
  const auto after = [&](int runs, uint64_t seed, int blocks, std::vector<int> launches) {
    return weights_after(settings, 10, runs, seed, blocks, launches);
  };
  const std::vector<float> alone = after(1, 5, 0, {3});
  CHECK(alone == after(3, 5, 0, {3}));
  CHECK(alone == after(2, 5, 1, {1, 2}));
  CHECK(alone == after(1, 5, 7, {3}));  // more blocks than sequences
  // So many that two blocks share a multiprocessor of a GPU, which is another kernel.
  if (!gpu::emulated()) CHECK(alone == after(80, 5, 0, {3}));
  CHECK(alone != after(1, 6, 0, {3}));
}

TEST_CASE("one launch: evaluation as the CPU's") {
  for (int length : {7, 40, 45}) {
    const StepSettings settings{.model = model_of(Pattern::topk, 5, length, 2, 0.1), .batch = 3};
    RandomRuns runs(settings, 8, 21, 2);
    gpu::OneLaunch launch(settings, runs.step_runs);
    Workers workers;
    Tape<float> tape(workers);
    CpuStepper cpu(tape, settings, runs.step_runs);
    runs.load(launch), runs.load(cpu);
    for (const Split split : {Split::train, Split::held_out}) {
      const auto got = launch.evaluate(split, never_stop), wanted = cpu.evaluate(split, never_stop);
      REQUIRE(got);
      for (size_t r = 0; r < 2; ++r) {
        CHECK(std::abs((*got)[r].loss - (*wanted)[r].loss) <= 2e-6 * (*wanted)[r].loss);
        CHECK((*got)[r].accuracy == (*wanted)[r].accuracy);
      }
    }
  }
}

TEST_CASE("one launch: a run that meets a NaN stops, the one beside it goes on") {
  const StepSettings settings{.model = model_of(Pattern::full, 0, 7, 1, 0), .batch = 2};
  RandomRuns runs(settings, 6, 1, 2);
  RandomRun& bad = runs.all[0];
  std::vector<float> weights = bad.weights();
  weights[200] = NAN;
  for (size_t i = 100; i < 448; ++i) weights[i] = NAN;  // words that surely occur
  bad.set_weights(weights);
  gpu::OneLaunch launch(settings, runs.step_runs);
  runs.load(launch);
  const auto results = launch.train(runs.epochs, 0, 3, never_stop);
  CHECK(results[0].failed);
  CHECK(results[0].losses.size() == 1);
  CHECK(!results[1].failed);
  CHECK(results[1].losses.size() == 3);
  launch.store(0, bad.model, bad.optimizer);
  CHECK(bad.weights()[0] == weights[0]);  // no weight was changed
}

TEST_CASE("one launch: a block that does not come ends in an error") {
  const StepSettings settings{.model = model_of(Pattern::full, 0, 7, 1, 0), .batch = 2};
  RandomRuns runs(settings, 4, 1, 1);
  gpu::OneLaunch launch(settings, runs.step_runs);
  runs.load(launch);
  launch.leave_out_a_block(true);
  launch.set_patience(0.2);
  CHECK_THROWS_AS(launch.train(runs.epochs, 0, 2, never_stop), RunError);
  launch.leave_out_a_block(false);
  CHECK(launch.train(runs.epochs, 0, 2, never_stop)[0].losses.size() == 2);
}

TEST_CASE("one launch: which models do not fit, and why") {
  StepSettings settings{.model = model_of(Pattern::topk, 5, 40, 5, 0.01)};
  ModelSettings& s = settings.model;
  CHECK(gpu::one_launch_problem(s, 25) == "");
  s.attention.heads = 2;
  CHECK(gpu::one_launch_problem(s, 25) == "2 heads, not 1");
  const RandomRuns runs(settings, 3, 1, 1);
  CHECK_THROWS_AS(gpu::OneLaunch(settings, runs.step_runs), InputError);
  s = model_of(Pattern::full, 0, 49, 5, 0.01);
  CHECK(gpu::one_launch_problem(s, 25) == "49 tokens, more than 48");
  s = model_of(Pattern::full, 0, 40, 200, 0.01);
  CHECK(gpu::one_launch_problem(s, 25).find("shared memory") != std::string::npos);
}

TEST_SUITE_END();
