// The CPU's stepper: states go in and out whole, runs do not touch each other, a failure ends one.
#include <doctest/doctest.h>

#include <deque>
#include <numeric>

#include "error.h"
#include "model_run.h"
#include "train/cpu_stepper.h"

using namespace focus;
using namespace focus::test;

namespace {

constexpr int rows = 11;

StepSettings settings_of(OptimizerKind optimizer, double dropout = 0.2) {
  return {.model = medium_model(Pattern::topk, dropout), .optimizer = optimizer, .batch = 4};
}

// Runs on random data, each with its own.
struct Runs {
  std::deque<Model<float>> models;
  std::deque<Optimizer<float>> optimizers;
  std::vector<StepRun> step_runs;
  std::vector<Epoch> epochs;

  Runs(const StepSettings& s, const std::vector<uint64_t>& seeds) {
    for (const uint64_t seed : seeds) {
      models.emplace_back(s.model).initialise(seed);
      optimizers.emplace_back(s.optimizer, models.back().parameters());
      const Batch batch = random_batch(s.model, rows, uint32_t(seed));
      RunData data;
      data.train = {rows,
                    s.model.length,
                    s.model.vocabulary,
                    {batch.tokens.begin(), batch.tokens.end()},
                    batch.labels};
      data.val = data.train;
      step_runs.push_back({seed, std::make_shared<const RunData>(std::move(data))});
      Epoch& epoch = epochs.emplace_back(Epoch{{}, 0.05, 7});
      epoch.order.resize(rows);
      std::iota(epoch.order.rbegin(), epoch.order.rend(), 0);
    }
  }
  void load(Stepper& stepper) const {
    for (size_t r = 0; r < models.size(); ++r) stepper.load(int(r), models[r], optimizers[r]);
  }
  void store(const Stepper& stepper) {
    for (size_t r = 0; r < models.size(); ++r) stepper.store(int(r), models[r], optimizers[r]);
  }
  std::vector<std::vector<float>> weights(size_t run) const {
    std::vector<std::vector<float>> all;
    for (const Parameter<float>& p : models[run].parameters()) all.push_back(p.value);
    return all;
  }
};

struct Cpu {
  Workers workers{2};
  Tape<float> tape{workers};
};

const std::atomic<bool> never{false};

}  // namespace

TEST_CASE("cpu stepper: its steps are train_step's") {
  for (OptimizerKind optimizer : {OptimizerKind::sgd, OptimizerKind::adam}) {
    const StepSettings s = settings_of(optimizer);
    Runs by_stepper(s, {3}), by_hand(s, {3});
    Cpu cpu;
    CpuStepper stepper(cpu.tape, s, by_stepper.step_runs);
    by_stepper.load(stepper);
    const StepsMade made = stepper.train(by_stepper.epochs, 0, 3, never)[0];
    by_stepper.store(stepper);
    REQUIRE(made.losses.size() == 3);
    const PaddedData& data = by_hand.step_runs[0].data->train;
    by_hand.optimizers[0].set_steps_taken(7);
    for (int step = 0; step < 3; ++step) {
      const int first = 4 * step, count = std::min(4, rows - first);  // the last has three rows
      std::vector<int> tokens, labels;
      for (int b = 0; b < count; ++b) {
        const int row = rows - 1 - first - b;
        const auto from = data.tokens.begin() + row * data.length;
        tokens.insert(tokens.end(), from, from + data.length);
        labels.push_back(data.labels[size_t(row)]);
      }
      const CpuStep<float> one =
          train_step(by_hand.models[0], by_hand.optimizers[0], cpu.tape, tokens.data(),
                     labels.data(), count, {true, 3, uint32_t(7 + step), 0}, 0.05, 0.5);
      CHECK(one.loss == made.losses[size_t(step)]);
    }
    CHECK(by_stepper.weights(0) == by_hand.weights(0));
    CHECK(by_stepper.optimizers[0].first_moments() == by_hand.optimizers[0].first_moments());
    CHECK(by_stepper.optimizers[0].second_moments() == by_hand.optimizers[0].second_moments());
  }
}

TEST_CASE("cpu stepper: the same bits alone, beside others, and through another stepper") {
  const StepSettings s = settings_of(OptimizerKind::adam);
  Runs alone(s, {5}), beside(s, {4, 5}), resumed(s, {5});
  Cpu cpu;
  const auto train = [&](Runs& runs, int first, int count) {
    CpuStepper stepper(cpu.tape, s, runs.step_runs);
    runs.load(stepper);
    stepper.train(runs.epochs, first, count, never);
    runs.store(stepper);
  };
  train(alone, 0, 3), train(beside, 0, 3);
  train(resumed, 0, 1), train(resumed, 1, 2);
  CHECK(alone.weights(0) == beside.weights(1));
  CHECK(alone.weights(0) == resumed.weights(0));
  CHECK(alone.weights(0) != beside.weights(0));
}

TEST_CASE("cpu stepper: gradients and evaluation change no state") {
  const StepSettings s = settings_of(OptimizerKind::sgd);
  Runs runs(s, {5}), same(s, {5});
  Cpu cpu;
  CpuStepper stepper(cpu.tape, s, runs.step_runs), other(cpu.tape, s, same.step_runs);
  runs.load(stepper), same.load(other);
  const Gradients g = stepper.gradients(runs.epochs, 1)[0];
  const auto evaluation = stepper.evaluate(Split::held_out, never);
  REQUIRE(evaluation);
  CHECK(g.logits.size() == size_t(4 * s.model.classes));
  CHECK(g.parameters.size() == runs.models[0].parameters().size());
  const StepsMade made = stepper.train(runs.epochs, 1, 1, never)[0];
  CHECK(made.losses.at(0) == g.loss);
  CHECK(other.train(same.epochs, 1, 1, never)[0].losses.at(0) == g.loss);
  runs.store(stepper), same.store(other);
  CHECK(runs.weights(0) == same.weights(0));
  const std::atomic<bool> stopped{true};
  CHECK(!stepper.evaluate(Split::train, stopped));
  CHECK(stepper.train(runs.epochs, 0, 2, stopped)[0].losses.empty());
}

TEST_CASE("cpu stepper: a NaN ends one run, which stands before that step, and no other") {
  const StepSettings s = settings_of(OptimizerKind::sgd, 0);
  Runs runs(s, {4, 5}), good(s, {5});
  for (float& w : runs.models[0].parameters().back().value) w = NAN;
  Cpu cpu;
  CpuStepper stepper(cpu.tape, s, runs.step_runs), alone(cpu.tape, s, good.step_runs);
  runs.load(stepper), good.load(alone);
  const auto before = runs.weights(0);
  const auto made = stepper.train(runs.epochs, 0, 3, never);
  CHECK(made[0].failed);
  CHECK(made[0].losses.size() == 1);
  CHECK(!std::isfinite(made[0].losses[0]));
  CHECK(!made[1].failed);
  CHECK(made[1].losses == alone.train(good.epochs, 0, 3, never)[0].losses);
  runs.store(stepper), good.store(alone);
  CHECK(runs.weights(0)[0] == before[0]);
  CHECK(runs.weights(1) == good.weights(0));
}

TEST_CASE("cpu stepper: what attention compares, of each layer") {
  StepSettings s = settings_of(OptimizerKind::sgd);
  s.model.blocks = 2;
  Runs runs(s, {3, 5});
  Cpu cpu;
  CpuStepper stepper(cpu.tape, s, runs.step_runs);
  runs.load(stepper);
  const auto inputs = stepper.attention_inputs(1, Split::held_out, 4, 3);
  REQUIRE(inputs.size() == 2);
  const size_t C = size_t(s.model.d_model), HC = C * size_t(s.model.attention.heads);
  const size_t tokens = 3 * size_t(s.model.length);
  Model<float>& model = runs.models[1];
  for (size_t layer = 0; layer < 2; ++layer) {
    const AttentionInputs& in = inputs[layer];
    REQUIRE(in.x.size() == tokens * C);
    REQUIRE(in.q.size() == tokens * HC);
    REQUIRE(in.k.size() == tokens * HC);
    // Normed rows, and the layer's own products of them.
    const auto parameter = [&](const char* name) -> const std::vector<float>& {
      const std::string whole = str("encoder.transformer.", layer, ".attention.", name);
      for (const Parameter<float>& p : model.parameters())
        if (p.name == whole) return p.value;
      throw std::logic_error(whole);
    };
    for (const size_t t : {size_t{0}, tokens / 2, tokens - 1}) {
      double mean = 0, square = 0;
      for (size_t c = 0; c < C; ++c) {
        const double x = double(in.x[t * C + c]);
        mean += x / double(C), square += x * x / double(C);
      }
      CHECK(std::abs(mean) < 1e-5);
      CHECK(std::abs(square - 1) < 1e-2);
      for (size_t o = 0; o < HC; ++o) {
        double q = double(parameter("W_q.bias")[o]), k = double(parameter("W_k.bias")[o]);
        for (size_t c = 0; c < C; ++c) {
          q += double(parameter("W_q.weight")[o * C + c]) * double(in.x[t * C + c]);
          k += double(parameter("W_k.weight")[o * C + c]) * double(in.x[t * C + c]);
        }
        CHECK(std::abs(double(in.q[t * HC + o]) - q) < 1e-5);
        CHECK(std::abs(double(in.k[t * HC + o]) - k) < 1e-5);
      }
    }
  }
  // The visit changes nothing: the logits are forward's, to the bit.
  const PaddedData& data = runs.step_runs[1].data->val;
  const std::vector<int> batch(data.tokens.begin(), data.tokens.begin() + 3 * data.length);
  cpu.tape.reset(false);
  const Tensor<float> plain = model.forward(cpu.tape, batch.data(), 3);
  const std::vector<float> logits(plain.data, plain.data + plain.size());
  cpu.tape.reset(false);
  const Tensor<float> visited = model.visit_attention(
      cpu.tape, batch.data(), 3, [](int, const auto&, const auto&, const auto&) {});
  CHECK(std::vector<float>(visited.data, visited.data + visited.size()) == logits);
}
