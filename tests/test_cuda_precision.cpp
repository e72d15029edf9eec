// Training steps whose products are made on tensor cores, against the model in double.
#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>

#include "cuda/stepper/cuda_device.h"
#include "cuda/stepper/graph_stepper.h"
#include "error.h"
#include "files/atomic_file.h"
#include "files/safetensors.h"
#include "one_launch_run.h"
#include "report/statistics.h"
#include "study/engine.h"
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

// Loss and gradient of step n in double, from the run's weights.
double double_step(const RandomRun& run, int batch, int n, std::vector<float>& gradient) {
  const ModelSettings& s = run.model.settings();
  Model<double> model(s);
  for (size_t i = 0; i < model.parameters().size(); ++i) {
    const auto& from = run.model.parameters()[i].value;
    model.parameters()[i].value.assign(from.begin(), from.end());
  }
  Workers workers(1);
  Tape<double> tape(workers);
  const PaddedData& data = run.step_run.data->train;
  const int first = n * batch, count = std::min(batch, data.rows - first);
  std::vector<int> tokens, labels;
  for (int b = 0; b < count; ++b) {
    const int row = run.epoch.order[size_t(first + b)];
    const auto from = data.tokens.begin() + row * s.length;
    tokens.insert(tokens.end(), from, from + s.length);
    labels.push_back(data.labels[size_t(row)]);
  }
  const Noise noise{true, run.step_run.seed, run.epoch.steps_before + uint32_t(n), 0};
  const double loss = compute_gradients(model, tape, tokens.data(), labels.data(), count, noise);
  gradient.clear();
  for (const Parameter<double>& p : model.parameters())
    for (const double x : p.gradient_value) gradient.push_back(float(x));
  return loss;
}

struct Errors {
  std::vector<double> loss, gradient;
};

Errors errors_of(Stepper& stepper, const StepSettings& settings, int rows, uint64_t seed) {
  RandomRun run(settings, rows, seed);
  Workers workers;
  Tape<float> tape(workers);
  CpuStepper cpu(tape, settings, {run.step_run});
  Errors errors;
  std::vector<float> wanted;
  for (int n = 0; n * settings.batch < rows; ++n) {
    const double loss = double_step(run, settings.batch, n, wanted);
    stepper.load(0, run.model, run.optimizer);
    gpu::shuffle_threads(uint64_t(n));
    const Gradients got = stepper.gradients({run.epoch}, n)[0];
    errors.loss.push_back(std::abs(double(got.loss) - loss) / loss);
    errors.gradient.push_back(relative_distance(flat(got.parameters), wanted));
    gpu::step_of(cpu, run, n);
  }
  gpu::shuffle_threads(0);
  return errors;
}

StepSettings settings_of(const ModelSettings& s, int batch, Precision precision) {
  return {.model = s, .batch = batch, .precision = precision};
}

// In one launch.
Errors errors_of(Precision precision, const ModelSettings& s, int batch, int rows, uint64_t seed) {
  const StepSettings settings = settings_of(s, batch, precision);
  gpu::OneLaunch launch(settings, {RandomRun(settings, rows, seed).step_run});
  return errors_of(launch, settings, rows, seed);
}

// The same with fused kernels, one after the other.
Errors errors_by_operations(Precision precision, const ModelSettings& s, int batch, int rows,
                            uint64_t seed) {
  StepSettings settings = settings_of(s, batch, precision);
  settings.form = "off";
  REQUIRE(gpu::CudaDevice().problem(settings) == "");
  gpu::GraphStepper list(settings, {RandomRun(settings, rows, seed).step_run}, true, true);
  return errors_of(list, settings, rows, seed);
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
      const Errors e = errors_by_operations(precision, s, 2, few(4, 6), 31);
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
      const Errors e =
          errors_of(precision, model_of(Pattern::full, 0, 11, 2, dropout), 3, few(6, 9), 32);
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
    const auto after = [&](int runs, int blocks, std::vector<int> launches) {
      return weights_after(settings_of(s, 3, precision), 5, runs, 5, blocks, launches);
    };
    const std::vector<float> alone = after(1, 0, {2});
    CHECK(alone == after(3, 0, {2}));
    CHECK(alone == after(2, 1, {1, 1}));
    if (!gpu::emulated()) CHECK(alone == after(80, 0, {2}));  // another kernel
    for (const auto& other : seen) CHECK(alone != other);
    seen.push_back(alone);
  }
}

TEST_CASE("precision: evaluation near the CPU's") {
  for (const Precision precision : below_fp32)
    for (const int length : {40, 45}) {
      const StepSettings settings =
          settings_of(model_of(Pattern::full, 0, length, 1, 0.1), 3, precision);
      const RandomRuns runs(settings, 4, 21, 2);
      gpu::OneLaunch launch(settings, runs.step_runs);
      gpu::GraphStepper graph(settings, runs.step_runs, true, true);
      Workers workers;
      Tape<float> tape(workers);
      CpuStepper cpu(tape, settings, runs.step_runs);
      runs.load(launch), runs.load(graph), runs.load(cpu);
      const auto wanted = cpu.evaluate(Split::train, never_stop);
      for (Stepper* stepper : {static_cast<Stepper*>(&launch), static_cast<Stepper*>(&graph)}) {
        const auto got = stepper->evaluate(Split::train, never_stop);
        for (size_t r = 0; r < 2; ++r) {
          const double error = std::abs((*got)[r].loss - (*wanted)[r].loss) / (*wanted)[r].loss;
          INFO(str(name_of(precision), ", length ", length, ", run ", r, ": ", error));
          CHECK(error <= gradient_limits(precision).most);
          CHECK((precision == Precision::tf32x3 || error > 1e-7));
        }
      }
    }
}

TEST_CASE("precision: a run that meets a NaN stops") {
  for (const Precision precision : below_fp32) {
    const StepSettings settings = settings_of(model_of(Pattern::full, 0, 7, 1, 0), 2, precision);
    RandomRuns runs(settings, 4, 1, 1);
    std::vector<float> weights = runs.all[0].weights();
    std::fill(weights.begin(), weights.begin() + 448, NAN);
    runs.all[0].set_weights(weights);
    gpu::OneLaunch launch(settings, runs.step_runs);
    runs.load(launch);
    const auto results = launch.train(runs.epochs, 0, 2, never_stop);
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
  known_devices().push_back(
      {"kernels", [] { return std::string(); }, gpu::device_count,
       [](int n) -> std::unique_ptr<Device> { return std::make_unique<gpu::CudaDevice>(n); }});
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
  // Kernel after kernel too.
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
  gpu::CudaDevice device;
  const auto study = [](const std::string& heads) {
    return parse_study(
        "precision,heads,length,blocks,train-size,val-size,batch,epochs,seeds\n"
        "fp32|tf32," +
            heads + ",7,1,5,3,3,1,1\n",
        "t");
  };
  const StudyOutcome outcome = run_study(study("1"), {.devices = {&device}});
  REQUIRE(outcome.results.variants.size() == 2);
  CHECK(outcome.results.variants[0].name == "full fp32");
  CHECK(outcome.results.variants[1].name == "full tf32");
  const auto loss = [&](int v) {
    return outcome.results.variants[size_t(v)].curves[0][0].train_loss;
  };
  CHECK(loss(0) != loss(1));
  CHECK(std::abs(loss(0) - loss(1)) < 1e-2);
  CHECK_THROWS_AS(run_study(study("1"), {}), InputError);
  CHECK_THROWS_AS(run_study(study("2"), {.devices = {&device}}), InputError);
}

TEST_SUITE_END();
