// The seam between the trainer and a machine: all steppers make the same steps, and one that does
// not is caught.
#include <doctest/doctest.h>

#include <cmath>

#include "cuda/stepper/cuda_device.h"
#include "error.h"
#include "one_launch_run.h"
#include "report/statistics.h"

using namespace focus;
using namespace focus::test;

namespace {

struct Distances {
  std::vector<double> loss, gradient, step;
};

// Steps of two runs by a stepper and by the CPU, each from the CPU's present weights, so that
// differences do not add up; only the last of them in one call from the first weights.
Distances distances(Stepper& stepper, RandomRuns& runs, const StepSettings& settings, int steps) {
  Workers workers;
  Tape<float> tape(workers);
  CpuStepper cpu(tape, settings, runs.step_runs);
  Distances d;
  for (int n = 0; n < steps; ++n) {
    runs.load(stepper), runs.load(cpu);
    gpu::shuffle_threads(uint64_t(n));
    const auto got = stepper.gradients(runs.epochs, n);
    const auto wanted = cpu.gradients(runs.epochs, n);
    const auto made = stepper.train(runs.epochs, n, 1, never_stop);
    const auto made_by_cpu = cpu.train(runs.epochs, n, 1, never_stop);
    for (size_t r = 0; r < runs.all.size(); ++r) {
      RandomRun& run = runs.all[r];
      const std::vector<float> before = run.weights();
      REQUIRE(made[r].losses.size() == made_by_cpu[r].losses.size());
      REQUIRE(made[r].failed == made_by_cpu[r].failed);
      const double loss = double(made_by_cpu[r].losses[0]);
      d.loss.push_back(std::abs(double(made[r].losses[0]) - loss) / loss);
      d.gradient.push_back(relative_distance(flat(got[r].parameters), flat(wanted[r].parameters)));
      stepper.store(int(r), run.model, run.optimizer);
      std::vector<float> moved = run.weights();
      cpu.store(int(r), run.model, run.optimizer);
      std::vector<float> wanted_move = run.weights();
      for (size_t i = 0; i < moved.size(); ++i) moved[i] -= before[i], wanted_move[i] -= before[i];
      d.step.push_back(relative_distance(moved, wanted_move));
      // The next step starts elsewhere: a stepper that keeps its own state shows.
      for (float& w : run.model.parameters()[0].value) w *= 1.01f;
    }
  }
  gpu::shuffle_threads(0);
  return d;
}

// "" if they are within the limits that rounding sets.
std::string trouble_of(const Distances& d) {
  const auto within = [](const char* what, double error, double limit) {
    return error <= limit ? std::string() : str(what, " ", error, ", limit ", limit, "; ");
  };
  std::string all = within("loss", median(d.loss), 2e-6) +
                    within("gradient", median(d.gradient), 5e-6) +
                    // A step is a difference of weights a thousand times its size.
                    within("step", median(d.step), 1e-3);
  // Rounding may decide about a key or a slope, once in a while and in a small part.
  for (const std::vector<double>* values : {&d.loss, &d.gradient, &d.step})
    for (double x : *values) all += within("one of them", x, 0.1);
  return all;
}

StepSettings settings_of(OptimizerKind optimizer, double dropout) {
  return {.model = model_of(Pattern::topk, 3, 7, 1, dropout), .optimizer = optimizer, .batch = 2};
}

// Hands everything to another stepper; what it does wrong is in the heirs.
class Liar : public Stepper {
 public:
  explicit Liar(std::unique_ptr<Stepper> honest) : honest_(std::move(honest)) {}
  void load(int run, const Model<float>& m, const Optimizer<float>& o) override {
    honest_->load(run, m, o);
  }
  void store(int run, Model<float>& m, Optimizer<float>& o) const override {
    honest_->store(run, m, o);
  }
  void set_plane(const Model<float>& m, const Direction& X, const Direction& Y) override {
    honest_->set_plane(m, X, Y);
  }
  void move_to(const std::vector<PlanePoint>& points) override { honest_->move_to(points); }
  std::vector<StepsMade> train(const std::vector<Epoch>& epochs, int first, int count,
                               const std::atomic<bool>& stop) override {
    return honest_->train(epochs, first, count, stop);
  }
  void take_snapshot() override { honest_->take_snapshot(); }
  std::optional<std::vector<Evaluation>> evaluate_snapshot(Split split,
                                                           const std::atomic<bool>& stop) override {
    return honest_->evaluate_snapshot(split, stop);
  }
  std::vector<Gradients> gradients(const std::vector<Epoch>& epochs, int step) override {
    return honest_->gradients(epochs, step);
  }
  std::vector<AttentionInputs> attention_inputs(int run, Split split, int first,
                                                int count) override {
    return honest_->attention_inputs(run, split, first, count);
  }

 protected:
  std::unique_ptr<Stepper> honest_;
};
struct WrongRun : Liar {
  using Liar::Liar;
  void store(int run, Model<float>& m, Optimizer<float>& o) const override {
    honest_->store(1 - run, m, o);
  }
};
struct StaleState : Liar {
  using Liar::Liar;
  mutable int stores = 0;
  void store(int run, Model<float>& m, Optimizer<float>& o) const override {
    if (stores++ < 2) honest_->store(run, m, o);  // later steps leave the state as it was
  }
};
struct OneNan : Liar {
  using Liar::Liar;
  void store(int run, Model<float>& m, Optimizer<float>& o) const override {
    honest_->store(run, m, o);
    m.parameters()[5].value[3] = NAN;
  }
};
struct LateNoise : Liar {
  using Liar::Liar;
  std::vector<StepsMade> train(const std::vector<Epoch>& epochs, int first, int count,
                               const std::atomic<bool>& stop) override {
    std::vector<Epoch> later = epochs;
    for (Epoch& epoch : later) ++epoch.steps_before;
    return honest_->train(later, first, count, stop);
  }
};

}  // namespace

TEST_CASE("steppers: the same 50 steps, from every form of a step") {
  const StepSettings settings = settings_of(OptimizerKind::sgd, 0.1);
  for (const char* form : {"graph", "fused", "one"}) {
    RandomRuns runs(settings, 100, 7, 1);
    StepSettings asked = settings;
    asked.form = form;
    const auto stepper = gpu::CudaDevice().make_stepper(asked, runs.step_runs);
    CHECK_MESSAGE(trouble_of(distances(*stepper, runs, settings, 50)) == "", form);
  }
}

TEST_CASE("steppers: the same steps with Adam, whose moments go in and out") {
  const StepSettings settings = settings_of(OptimizerKind::adam, 0);
  for (const char* form : {"graph", "fused", "one"}) {
    RandomRuns runs(settings, 12, 7, 2);
    for (Epoch& epoch : runs.epochs) epoch.rate = 0.001;
    StepSettings asked = settings;
    asked.form = form;
    const auto stepper = gpu::CudaDevice().make_stepper(asked, runs.step_runs);
    const Distances d = distances(*stepper, runs, settings, 4);
    // Adam divides by gradients that may be all rounding: the step's direction, not its digits.
    CHECK(median(d.loss) <= 2e-6);
    CHECK(median(d.gradient) <= 5e-6);
    CHECK(median(d.step) <= 0.05);
  }
}

TEST_CASE("steppers: many steps in one call are the steps one by one, to the bit") {
  const StepSettings settings = settings_of(OptimizerKind::sgd, 0.1);
  for (const char* form : {"graph", "fused", "one"}) {
    std::vector<std::vector<float>> weights;
    std::vector<std::vector<float>> losses;
    for (const std::vector<int>& calls : {std::vector<int>{4}, {1, 2, 1}}) {
      RandomRuns runs(settings, 7, 7, 2);  // the last batch has one row
      StepSettings asked = settings;
      asked.form = form;
      const auto stepper = gpu::CudaDevice().make_stepper(asked, runs.step_runs);
      runs.load(*stepper);
      std::vector<float> made;
      int first = 0;
      for (int count : calls) {
        const auto steps = stepper->train(runs.epochs, first, count, never_stop);
        made.insert(made.end(), steps[1].losses.begin(), steps[1].losses.end());
        first += count;
      }
      stepper->store(1, runs.all[1].model, runs.all[1].optimizer);
      weights.push_back(runs.all[1].weights()), losses.push_back(made);
    }
    CHECK(losses[0].size() == 4);
    CHECK(losses[0] == losses[1]);
    CHECK(weights[0] == weights[1]);
  }
}

TEST_CASE("steppers: one that lies is caught") {
  StepSettings settings = settings_of(OptimizerKind::sgd, 0.1);
  settings.form = "fused";
  const auto trouble = [&](auto make) {
    RandomRuns runs(settings, 10, 7, 2);
    const auto stepper = make(gpu::CudaDevice().make_stepper(settings, runs.step_runs));
    return trouble_of(distances(*stepper, runs, settings, 5));
  };
  const auto as = [](auto liar) {
    using T = typename decltype(liar)::type;
    return [](std::unique_ptr<Stepper> honest) { return std::make_unique<T>(std::move(honest)); };
  };
  CHECK(trouble(as(std::type_identity<Liar>())) == "");
  CHECK(trouble(as(std::type_identity<WrongRun>())) != "");
  CHECK(trouble(as(std::type_identity<StaleState>())) != "");
  CHECK(trouble(as(std::type_identity<OneNan>())) != "");
  CHECK(trouble(as(std::type_identity<LateNoise>())) != "");
}

TEST_CASE("steppers: evaluation of every form as the CPU's, in batches with a remainder") {
  const StepSettings settings = settings_of(OptimizerKind::sgd, 0.1);
  for (const char* form : {"graph", "fused", "one"}) {
    RandomRuns runs(settings, 7, 7, 2);
    StepSettings asked = settings;
    asked.form = form;
    const auto stepper = gpu::CudaDevice().make_stepper(asked, runs.step_runs);
    Workers workers;
    Tape<float> tape(workers);
    CpuStepper cpu(tape, settings, runs.step_runs);
    runs.load(*stepper), runs.load(cpu);
    const auto got = stepper->evaluate(Split::held_out, never_stop);
    const auto wanted = cpu.evaluate(Split::held_out, never_stop);
    for (size_t r = 0; r < 2; ++r) {
      CHECK(std::abs((*got)[r].loss - (*wanted)[r].loss) <= 2e-6 * (*wanted)[r].loss);
      CHECK((*got)[r].accuracy == (*wanted)[r].accuracy);
    }
    const std::atomic<bool> stopped{true};
    CHECK(!stepper->evaluate(Split::train, stopped));
    for (const StepsMade& made : stepper->train(runs.epochs, 0, 2, stopped))
      CHECK(made.losses.empty());
  }
}

TEST_CASE("steppers: a run whose loss is no number ends alone, in every form") {
  const StepSettings settings = settings_of(OptimizerKind::sgd, 0);
  for (const char* form : {"graph", "fused", "one"}) {
    RandomRuns runs(settings, 12, 7, 2);
    std::vector<float> weights = runs.all[0].weights();
    for (size_t i = 100; i < 448; ++i) weights[i] = NAN;
    runs.all[0].set_weights(weights);
    StepSettings asked = settings;
    asked.form = form;
    const auto stepper = gpu::CudaDevice().make_stepper(asked, runs.step_runs);
    runs.load(*stepper);
    const auto made = stepper->train(runs.epochs, 0, 4, never_stop);
    CHECK(made[0].failed);
    CHECK(made[0].losses.size() == 1);
    CHECK(!(made[0].norm - made[0].norm == 0));
    CHECK(!made[1].failed);
    CHECK(made[1].losses.size() == 4);
    stepper->store(0, runs.all[0].model, runs.all[0].optimizer);
    CHECK(runs.all[0].weights()[0] == weights[0]);  // no weight was changed
  }
}

TEST_CASE("cuda device: the form of a step, and why") {
  gpu::CudaDevice device;
  StepSettings s{.model = model_of(Pattern::topk, 3, 11, 2, 0)};
  CHECK(device.explain(s) == "steps: one launch makes many of them");
  s.form = "off";
  CHECK(device.explain(s) ==
        "steps: a list of kernels, most of a block in two, recorded once (--step-kernel off)");
  s.form = "auto", s.model.length = 70;
  CHECK(
      device.explain(s) ==
      "steps: a list of kernels, most of a block in two, recorded once (70 tokens, more than 48)");
  s.precision = Precision::tf32;
  CHECK(device.problem(s) == "");
  s.model.attention.heads = 2;
  CHECK(device.problem(s) == str("d-model 64, d-mlp 64, 2 head(s) on ", gpu::device().name));
  s.precision = Precision::fp32;
  CHECK(device.problem(s) == "");
  CHECK(device.explain(s) == "steps: a list of kernels, recorded once (2 heads, not 1)");
  for (const char* form : {"one", "fused", "two"}) {
    s.form = form;
    CHECK_THROWS_AS(device.make_stepper(s, {}), InputError);
  }
}

TEST_CASE("cuda device: fewer kernels start from form to form") {
  const StepSettings settings = settings_of(OptimizerKind::sgd, 0.1);
  gpu::CudaDevice device;
  std::vector<double> kernels;
  for (const char* form : {"operations", "graph", "fused", "one"}) {
    RandomRuns runs(settings, 3, 7, 2);
    StepSettings asked = settings;
    asked.form = form;
    const auto stepper = device.make_stepper(asked, runs.step_runs);
    runs.load(*stepper);
    const uint64_t before = device.facts().kernels_launched;
    stepper->train(runs.epochs, 0, 1, never_stop);
    kernels.push_back(double(device.facts().kernels_launched - before));
  }
  CHECK(kernels[0] > 40);
  CHECK(kernels[1] == kernels[0]);
  CHECK(kernels[2] < kernels[1]);
  CHECK(kernels[3] == 1);
}

TEST_CASE("steppers: what attention compares, of every layer, is the CPU's") {
  for (const char* form : {"graph", "fused"}) {
    StepSettings settings = settings_of(OptimizerKind::sgd, 0.1);
    settings.form = form, settings.model.blocks = 3;
    RandomRuns runs(settings, 7, 7, 2);
    const auto stepper = gpu::CudaDevice().make_stepper(settings, runs.step_runs);
    Workers workers;
    Tape<float> tape(workers);
    CpuStepper cpu(tape, settings, runs.step_runs);
    runs.load(*stepper), runs.load(cpu);
    for (const auto& rows : {std::tuple(1, 2, 3), std::tuple(0, 0, 7), std::tuple(1, 6, 1)}) {
      const int run = std::get<0>(rows), first = std::get<1>(rows), count = std::get<2>(rows);
      const auto got = stepper->attention_inputs(run, Split::train, first, count);
      const auto wanted = cpu.attention_inputs(run, Split::train, first, count);
      REQUIRE(got.size() == 3);
      REQUIRE(wanted.size() == 3);
      for (size_t layer = 0; layer < 3; ++layer) {
        INFO(str(form, ", run ", run, ", rows from ", first, ", layer ", layer));
        REQUIRE(got[layer].x.size() == size_t(count * 7 * 64));
        CHECK(relative_distance(got[layer].x, wanted[layer].x) <= 2e-6);
        CHECK(relative_distance(got[layer].q, wanted[layer].q) <= 2e-6);
        CHECK(relative_distance(got[layer].k, wanted[layer].k) <= 2e-6);
      }
    }
    CHECK_THROWS_WITH_AS(stepper->attention_inputs(0, Split::train, 5, 3), "rows 5 to 7 of 7",
                         InputError);
    // It leaves no trace in what comes after.
    CHECK((*stepper->evaluate(Split::train, never_stop))[0].loss ==
          (*stepper->evaluate(Split::train, never_stop))[0].loss);
  }
  StepSettings settings = settings_of(OptimizerKind::sgd, 0);
  settings.form = "one";
  RandomRuns runs(settings, 3, 7, 1);
  const auto launch = gpu::CudaDevice().make_stepper(settings, runs.step_runs);
  CHECK_THROWS_WITH_AS(launch->attention_inputs(0, Split::train, 0, 1),
                       doctest::Contains("use the form 'off'"), InputError);
}

TEST_CASE("steppers: runs on a plane of weights are where the CPU puts them") {
  for (const char* form : {"graph", "one"}) {
    StepSettings settings = settings_of(OptimizerKind::sgd, 0.1);
    settings.form = form;
    RandomRuns runs(settings, 7, 7, 2);
    const Model<float>& centre = runs.all[0].model;
    Direction X, Y;
    for (const Parameter<float>& p : centre.parameters()) {
      X.emplace_back(p.value.size()), Y.emplace_back(p.value.size());
      for (size_t i = 0; i < p.value.size(); ++i)
        X.back()[i] = std::sin(double(i + X.size())), Y.back()[i] = std::cos(3.0 * double(i));
    }
    const auto stepper = gpu::CudaDevice().make_stepper(settings, runs.step_runs);
    Workers workers;
    Tape<float> tape(workers);
    CpuStepper cpu(tape, settings, runs.step_runs);
    for (Stepper* s : {stepper.get(), static_cast<Stepper*>(&cpu)}) {
      s->set_plane(centre, X, Y);
      s->move_to({{0, 0}, {9, 9}});  // the last call counts
      s->move_to({{0.25, -0.5}, {-1, 0.125}});
      CHECK_THROWS_AS(s->move_to({{0, 0}}), InputError);
    }
    RandomRuns placed(settings, 7, 7, 2), wanted(settings, 7, 7, 2);
    for (int r = 0; r < 2; ++r) {
      INFO(form, ", run ", r);
      RandomRun &a = placed.all[size_t(r)], &b = wanted.all[size_t(r)];
      stepper->store(r, a.model, a.optimizer), cpu.store(r, b.model, b.optimizer);
      CHECK(relative_distance(a.weights(), b.weights()) <= 1e-8);
      CHECK(relative_distance(b.weights(), runs.all[0].weights()) > 0.1);
    }
    const auto got = stepper->evaluate(Split::train, never_stop),
               by_cpu = cpu.evaluate(Split::train, never_stop);
    for (size_t r = 0; r < 2; ++r)
      CHECK((*got)[r].loss == doctest::Approx((*by_cpu)[r].loss).epsilon(1e-5));
  }
}

TEST_CASE("cuda device: each kernel's time, of as many launches as are counted") {
  StepSettings settings = settings_of(OptimizerKind::sgd, 0.1);
  settings.form = "operations";
  RandomRuns runs(settings, 3, 7, 1);
  gpu::CudaDevice device;
  const auto stepper = device.make_stepper(settings, runs.step_runs);
  runs.load(*stepper);
  const uint64_t before = device.facts().kernels_launched;
  uint64_t launches = 0;
  for (const Device::KernelTime& k :
       device.time_kernels([&] { stepper->train(runs.epochs, 0, 1, never_stop); })) {
    launches += k.launches;
    CHECK_MESSAGE(k.ms >= 0, k.kernel);
  }
  CHECK(launches > 40);
  CHECK(device.facts().kernels_launched - before == launches);
}
