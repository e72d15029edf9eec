// Training steps whose products are made on tensor cores, against the model in double.
#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>

#include "cuda/ops/ops.h"
#include "error.h"
#include "files/atomic_file.h"
#include "files/safetensors.h"
#include "one_launch_run.h"
#include "report/statistics.h"
#include "study/engine.h"
#include "train/placed_model.h"
#include "train/store.h"

using namespace focus;
using namespace focus::test;

TEST_SUITE_BEGIN("training");  // slow: tests/run.sh runs them beside the others

namespace {

constexpr Precision below_fp32[] = {Precision::tf32x3, Precision::tf32, Precision::bf16};

// What the gradient's relative error may be, in the median over steps; and what it must be, since
// numbers of so few digits cannot do better: else the kernel computes with others than it says.
struct Limits {
  double least, most;
};
Limits gradient_limits(Precision precision) {
  switch (precision) {
    case Precision::tf32x3:
      return {0, 1e-5};
    case Precision::tf32:
      return {5e-5, 1e-3};
    case Precision::bf16:
      return {5e-4, 2e-2};
    case Precision::fp32:
      break;
  }
  return {0, 5e-6};
}

// Loss and gradient of step n in double, from the pair's weights.
double double_step(const Pair& pair, int n, std::vector<float>& gradient) {
  const ModelSettings& s = pair.model.settings();
  Model<double> model(s);
  for (size_t i = 0; i < model.parameters().size(); ++i) {
    const auto& from = pair.model.parameters()[i].value;
    model.parameters()[i].value.assign(from.begin(), from.end());
  }
  Workers workers(1);
  Tape<double> tape(workers);
  std::vector<int> tokens, labels;
  const int count = pair.batch_of(n, tokens, labels);
  tape.reset(true, {true, pair.seed, uint32_t(40 + n), 0});
  model.zero_gradients();
  const Tensor<double> loss =
      cross_entropy(tape, model.forward(tape, tokens.data(), count), labels.data());
  tape.backward(loss);
  gradient.clear();
  for (const Parameter<double>& p : model.parameters())
    for (const double x : p.gradient_value) gradient.push_back(float(x));
  return loss.data[0];
}

struct Errors {
  std::vector<double> loss, gradient;
};

Errors errors_of(Precision precision, const ModelSettings& s, int batch, int rows, uint64_t seed) {
  Pair pair(s, OptimizerKind::sgd, batch, rows, seed);
  gpu::OneLaunch launch(s, OptimizerKind::sgd, batch, 1, precision);
  Errors errors;
  std::vector<float> wanted;
  for (int n = 0; n * batch < rows; ++n) {
    const double loss = double_step(pair, n, wanted);
    pair.gradients.poison();
    pair.upload();
    gpu::shuffle_threads(uint64_t(n));
    const auto results = launch.train({pair.run()}, n, 1);
    REQUIRE(results[0].losses.size() == 1);
    errors.loss.push_back(std::abs(double(results[0].losses[0]) - loss) / loss);
    errors.gradient.push_back(
        relative_distance(pair.gradients.host(), wanted, pair.model.parameter_count()));
    pair.step(n);
  }
  gpu::shuffle_threads(0);
  return errors;
}

// The same, operation by operation.
Errors errors_by_operations(Precision precision, const ModelSettings& s, int batch, int rows,
                            uint64_t seed) {
  Pair pair(s, OptimizerKind::sgd, batch, rows, seed);
  gpu::CudaOps device;
  device.set_precision(precision);
  REQUIRE(device.precision_problem(precision, s) == "");
  PlacedModel placed(device, s, {seed});
  Workers workers(1);
  Tape<float> tape(workers, &device);
  Model<float> result(s);
  Errors errors;
  std::vector<float> wanted, got;
  for (int n = 0; n * batch < rows; ++n) {
    const double wanted_loss = double_step(pair, n, wanted);
    placed.upload(0, pair.model);
    std::vector<int> tokens, labels;
    const int count = pair.batch_of(n, tokens, labels);
    const gpu::DeviceArray<int> d_tokens(tokens), d_labels(labels);
    gpu::shuffle_threads(uint64_t(n));
    tape.reset(true, {true, 0, uint32_t(40 + n), 0});
    device.fill(placed.gradients(), placed.stride(), 0);
    const Tensor<float> loss =
        cross_entropy(tape, placed.model().forward(tape, d_tokens.data(), count), d_labels.data());
    tape.backward(loss);
    float got_loss = 0;
    device.download(&got_loss, loss.data, sizeof(float));
    placed.download_gradients(0, result);
    got.clear();
    for (const Parameter<float>& p : result.parameters())
      got.insert(got.end(), p.gradient_value.begin(), p.gradient_value.end());
    errors.loss.push_back(std::abs(double(got_loss) - wanted_loss) / wanted_loss);
    errors.gradient.push_back(relative_distance(got, wanted, wanted.size()));
    pair.step(n);
  }
  gpu::shuffle_threads(0);
  return errors;
}

}  // namespace

TEST_CASE("precision: operation by operation, the gradient against double") {
  struct Case {
    Pattern pattern;
    int k, length, blocks;
  };
  for (const Precision precision :
       {Precision::fp32, Precision::tf32x3, Precision::tf32, Precision::bf16})
    for (const Case& c : {Case{Pattern::full, 0, 7, 2}, Case{Pattern::topk, 5, 70, 2},
                          Case{Pattern::banded, 3, 33, 1}}) {
      ModelSettings s = model_of(c.pattern, c.k, c.length, c.blocks, 0.1);
      s.activation = Activation::gelu;
      const Errors e = errors_by_operations(precision, s, 2, 6, 31);
      const Limits limits = gradient_limits(precision);
      INFO(str(name_of(precision), ", ", name_of(c.pattern), "(", c.k, "), length ", c.length,
               ": loss ", median(e.loss), ", gradient ", median(e.gradient)));
      // Among 70 keys rounding decides about some of the last ones chosen.
      CHECK(median(e.gradient) <= limits.most * (c.length == 70 ? 10 : 1));
      CHECK(median(e.gradient) >= limits.least);
      CHECK(median(e.loss) <= limits.most);
      for (const double x : e.gradient) CHECK(x <= 0.5);
    }
}

TEST_CASE("precision: the gradient against double, for every pattern") {
  struct Case {
    Pattern pattern;
    int k, length, blocks;
  };
  for (const Precision precision : below_fp32)
    for (const Case& c : {Case{Pattern::full, 0, 7, 2}, Case{Pattern::topk, 5, 40, 1},
                          Case{Pattern::topk, 16, 41, 1}, Case{Pattern::bottomk, 4, 13, 1},
                          Case{Pattern::banded, 5, 39, 1}, Case{Pattern::block, 9, 48, 1}}) {
      ModelSettings s = model_of(c.pattern, c.k, c.length, c.blocks, 0.1);
      s.activation = Activation::gelu;  // without a kink: there a rounding decides a slope
      const Errors e = errors_of(precision, s, 2, 6, 31);
      const Limits limits = gradient_limits(precision);
      INFO(str(name_of(precision), ", ", name_of(c.pattern), "(", c.k, "), length ", c.length,
               ": loss ", median(e.loss), ", gradient ", median(e.gradient)));
      CHECK(median(e.gradient) <= limits.most);
      CHECK(median(e.gradient) >= limits.least);
      CHECK(median(e.loss) <= limits.most);
      for (const double x : e.gradient) CHECK(x <= 0.5);
    }
}

TEST_CASE("precision: relu, with and without dropout") {
  for (const Precision precision : below_fp32)
    for (const double dropout : {0.0, 0.2}) {
      const Errors e = errors_of(precision, model_of(Pattern::full, 0, 11, 2, dropout), 3, 9, 32);
      const Limits limits = gradient_limits(precision);
      INFO(str(name_of(precision), ", dropout ", dropout, ": ", median(e.gradient)));
      CHECK(median(e.gradient) >= limits.least);
      CHECK(median(e.gradient) <= 3 * limits.most);  // some slopes are decided by rounding
    }
}

TEST_CASE("precision: the same bits alone, among others, in one launch or several") {
  const ModelSettings s = model_of(Pattern::topk, 5, 9, 1, 0.1);
  std::vector<std::vector<float>> seen;
  for (const Precision precision : below_fp32) {
    const auto weights_after = [&](int runs, int which, int blocks, std::vector<int> launches) {
      std::vector<std::unique_ptr<Pair>> pairs;
      std::vector<OneLaunchRun> on_device;
      for (int r = 0; r < runs; ++r) {
        pairs.push_back(std::make_unique<Pair>(s, OptimizerKind::sgd, 3, 5, uint64_t(which + r)));
        on_device.push_back(pairs.back()->run());
      }
      gpu::OneLaunch launch(s, OptimizerKind::sgd, 3, runs, precision);
      launch.set_blocks_a_run(blocks);
      int first = 0;
      for (int steps : launches) {
        gpu::shuffle_threads(uint64_t(first + runs));
        launch.train(on_device, first, steps), first += steps;
      }
      gpu::shuffle_threads(0);
      return pairs[0]->parameters.host();
    };
    const std::vector<float> alone = weights_after(1, 5, 0, {2});
    CHECK(alone == weights_after(3, 5, 0, {2}));
    CHECK(alone == weights_after(2, 5, 1, {1, 1}));
    if (!gpu::emulated()) CHECK(alone == weights_after(80, 5, 0, {2}));  // another kernel
    for (const auto& other : seen) CHECK(alone != other);
    seen.push_back(alone);
  }
}

TEST_CASE("precision: evaluation near the CPU's") {
  for (const Precision precision : below_fp32)
    for (const int length : {40, 45}) {
      const ModelSettings s = model_of(Pattern::full, 0, length, 1, 0.1);
      Pair pair(s, OptimizerKind::sgd, 3, 4, 21);
      gpu::OneLaunch launch(s, OptimizerKind::sgd, 3, 1);
      launch.set_precision(precision);
      PaddedData data;
      data.rows = 4, data.length = length, data.labels = pair.labels;
      data.tokens.assign(pair.tokens.begin(), pair.tokens.end());
      const auto wanted = focus::evaluate(pair.model, pair.tape, data);
      const double error =
          std::abs(launch.evaluate({pair.run()})[0].loss - wanted->loss) / wanted->loss;
      INFO(str(name_of(precision), ", length ", length, ": ", error));
      CHECK(error <= gradient_limits(precision).most);
      CHECK((precision == Precision::tf32x3 || error > 1e-7));
    }
}

TEST_CASE("precision: a run that meets a NaN stops") {
  const ModelSettings s = model_of(Pattern::full, 0, 7, 1, 0);
  for (const Precision precision : below_fp32) {
    Pair bad(s, OptimizerKind::sgd, 2, 4, 1);
    std::vector<float> weights = bad.weights();
    std::fill(weights.begin(), weights.begin() + 448, NAN);
    bad.parameters.set(weights);
    gpu::OneLaunch launch(s, OptimizerKind::sgd, 2, 1, precision);
    const auto results = launch.train({bad.run()}, 0, 2);
    CHECK(results[0].failed);
    CHECK(results[0].losses.size() == 1);
  }
}

TEST_CASE("precision: names") {
  for (const Precision precision : below_fp32) CHECK(precision_of(name_of(precision)) == precision);
  CHECK(precision_of("fp32") == Precision::fp32);
  CHECK_THROWS_AS(precision_of("fp16"), InputError);
}

TEST_CASE("precision: a run keeps it, resumed too") {
  namespace fs = std::filesystem;
  const MakeDevice make = []() -> std::unique_ptr<Device<float>> {
    return std::make_unique<gpu::CudaOps>();
  };
  known_devices().push_back({"kernels", [] { return std::string(); }, make});
  const fs::path folder = fs::temp_directory_path() / str("focus-precision-", ::getpid());
  TrainPlan plan;
  plan.settings.attention = Pattern::topk, plan.settings.k = 3;
  plan.settings.blocks = 1, plan.settings.length = 7, plan.settings.batch = 3;
  plan.settings.train_size = 5, plan.settings.val_size = 3, plan.settings.epochs = 2;
  plan.settings.precision = Precision::tf32;
  plan.seeds = {3, 4}, plan.device = "kernels";
  const auto trained = [&](const char* name, int epochs) {
    TrainPlan one = plan;
    one.out = folder / name, one.settings.epochs = epochs;
    fs::create_directories(folder);
    return train(one);
  };
  const auto losses = [](const TrainResult& result) {
    std::vector<double> all;
    for (const EpochMetrics& row : result.metrics)
      all.insert(all.end(), {row.train_loss, row.val_loss});
    return all;
  };
  const TrainResult whole = trained("whole", 2);
  CHECK(whole.metrics.size() == 4);
  trained("parts", 1);
  CHECK(read_plan(folder / "parts").settings.precision == Precision::tf32);
  resume(folder / "parts", 2, 0);
  const auto last = [&](const char* name) {
    return read_file(folder / name / "seed-4/last.safetensors", 1 << 20);
  };
  CHECK(last("parts") == last("whole"));
  const Safetensors file = Safetensors::read(folder / "parts/seed-4/last.safetensors");
  CHECK(file.setting("run.precision") == "tf32");
  // On the CPU it cannot go on.
  CHECK_THROWS_WITH_AS(resume(folder / "parts", 3, 0, {}, "cpu"),
                       doctest::Contains("--precision tf32 is for --device cuda"), InputError);
  plan.settings.precision = Precision::fp32;
  CHECK(losses(trained("fp32", 2)) != losses(whole));
  // Operation by operation too.
  plan.step_kernel = "off";
  const std::vector<double> exact = losses(trained("off-fp32", 2));
  plan.settings.precision = Precision::tf32;
  const std::vector<double> by_operations = losses(trained("off-whole", 2));
  CHECK(by_operations != losses(whole));
  CHECK(by_operations != exact);
  REQUIRE(by_operations.size() == exact.size());
  for (size_t i = 0; i < exact.size(); ++i)
    CHECK(std::abs(by_operations[i] - exact[i]) <= 1e-2 * exact[i]);
  trained("off-parts", 1);
  resume(folder / "off-parts", 2, 0);
  CHECK(last("off-parts") == last("off-whole"));
  plan.step_kernel = "auto";
  plan.settings.precision = Precision::bf16, plan.settings.heads = 2;
  CHECK_THROWS_WITH_AS(trained("heads", 2),
                       doctest::Contains("here: d-model 64, d-mlp 64, 2 head(s)"), InputError);
  CHECK(!fs::exists(folder / "heads"));
  fs::remove_all(folder);
  known_devices().pop_back();
}

TEST_CASE("precision: studies vary it") {
  gpu::CudaOps device;
  const auto study = [](const std::string& heads) {
    return parse_study(
        "precision,heads,length,blocks,train-size,val-size,batch,epochs,seeds\n"
        "fp32|tf32," +
            heads + ",7,1,5,3,3,1,1\n",
        "t");
  };
  const StudyOutcome outcome = run_study(study("1"), {.device = &device});
  REQUIRE(outcome.results.variants.size() == 2);
  CHECK(outcome.results.variants[0].name == "full fp32");
  CHECK(outcome.results.variants[1].name == "full tf32");
  const auto loss = [&](int v) {
    return outcome.results.variants[size_t(v)].curves[0][0].train_loss;
  };
  CHECK(loss(0) != loss(1));
  CHECK(std::abs(loss(0) - loss(1)) < 1e-2);
  CHECK_THROWS_AS(run_study(study("1"), {}), InputError);
  CHECK_THROWS_AS(run_study(study("2"), {.device = &device}), InputError);
}

TEST_SUITE_END();
