// Causal attention on the device: every rung that has the mask, the trainer's attention, and whole
// steps and evaluations of models that predict the next token.
#include <doctest/doctest.h>

#include "attention_run.h"
#include "cuda/stepper/cuda_device.h"
#include "cuda_run.h"
#include "model_run.h"
#include "one_launch_run.h"

using namespace focus;
using namespace focus::test;

namespace {

std::vector<int> causal_rungs(Pattern pattern, gpu::Pass pass, const gpu::Call& call) {
  std::vector<int> numbers;
  for (const gpu::Rung& rung : gpu::ladder())
    if (rung.pass == pass && rung.has_pattern(pattern) && rung.features.causal &&
        rung.unsupported(call).empty())
      numbers.push_back(rung.number);
  return numbers;
}

AttentionSettings causal(Pattern pattern, int k) {
  return {.pattern = pattern, .k = k, .causal = true};
}

// The keys that a mask keeps, ascending, of each query; filled up to k with those after the query.
std::vector<int> filled_keys(const Sizes& s, const Mask& mask, int k) {
  std::vector<int> keys;
  for (size_t row = 0; row < mask.size() / size_t(s.T); ++row) {
    int count = 0;
    for (int j = 0; j < s.T; ++j)
      if (mask[row * size_t(s.T) + size_t(j)]) keys.push_back(j), ++count;
    for (; count < k; ++count) keys.push_back(count);
  }
  return keys;
}

// Forward by every rung, each followed by every backward rung.
int check_rungs(const Sizes& s, Pattern pattern, int k) {
  const bool topk = pattern == Pattern::topk;
  const auto scores = [&](uint32_t which) {  // exact in float: the choice is the reference's
    return topk ? quarters_for(s, which) : normal_numbers(s, which);
  };
  const Numbers q = scores(1), keys = scores(2), v = normal_numbers(s, 3),
                d_o = normal_numbers(s, 4);
  const Mask mask = reference_mask(causal(pattern, k), s, q, keys);
  const AttentionResult wanted = reference_attention(s, q, keys, v, mask, {}, 1, d_o);
  KernelRun run(s, pattern, k, 0, q, keys, v, d_o);
  run.call.causal = true;
  int compared = 0;
  for (const int rung : causal_rungs(pattern, gpu::Pass::forward, run.call)) {
    const std::string what = str("rung ", rung, " T ", s.T, " D ", s.D, " k ", k, " ");
    for (auto* x : {&run.o, &run.lse, &run.p}) KernelRun::poison_array(*x);
    run.keys.poison();
    CHECK(run.run(gpu::Pass::forward, rung) == rung);
    CHECK(too_far(what + "o", run.o, wanted.o, float_limit) == "");
    if (topk) CHECK_MESSAGE(run.keys.host() == filled_keys(s, mask, k), what);
    for (const int backward : causal_rungs(pattern, gpu::Pass::backward, run.call)) {
      for (auto* x : {&run.dq, &run.dk, &run.dv}) KernelRun::poison_array(*x);
      CHECK(run.run(gpu::Pass::backward, backward) == backward);
      const std::string both = str(what, "backward ", backward, " ");
      // With one key its weight is 1 and these gradients 0.
      const double limit = k == 1 && topk ? 1e-4 : float_limit;
      if (s.T > 1) CHECK(too_far(both + "dq", run.dq, wanted.dq, limit) == "");
      if (s.T > 1) CHECK(too_far(both + "dk", run.dk, wanted.dk, limit) == "");
      CHECK(too_far(both + "dv", run.dv, wanted.dv, float_limit) == "");
      ++compared;
    }
  }
  return compared;
}

// A model of a vocabulary for the device: predicts the next token, at every position or once.
ModelSettings text_model(Objective objective, Pattern pattern, int k, int length, int d,
                         int vocabulary, double dropout) {
  ModelSettings s;
  s.attention = {pattern, k, 0, 2, dropout, 1, objective == Objective::causal};
  s.objective = objective, s.vocabulary = s.classes = vocabulary, s.length = length;
  s.blocks = 1, s.d_model = d, s.d_mlp = d + 4, s.dropout = dropout;
  return s;
}

}  // namespace

TEST_CASE("cuda causal: every rung, output and gradients, against dense with a mask") {
  int compared = 0;
  for (const int T : lengths_to_test())
    for (const int D : widths_to_test()) {
      if (small_sizes() && T > 65 && D != 16 && D != 128) continue;
      const Sizes s{batch_to_test(T), T, T > 65 ? 1 : 2, D};
      compared += check_rungs(s, Pattern::full, 0);
    }
  CHECK(compared >= 18);
  compared = 0;
  for (const int T : lengths_to_test())
    for (const int k : {1, 2, 5, 8, 9, 16, T}) {  // k > t for the first queries, k = T
      const int widths[] = {64, 16, 20, 128, 36, 100};
      if (k <= T && (k != T || T <= 17))
        compared += check_rungs({batch_to_test(T), T, T > 65 ? 1 : 2, widths[(T + k) % 6]},
                                Pattern::topk, k);
    }
  CHECK(compared > 20);
}

TEST_CASE("cuda causal: no rung lets a later token into an earlier query's output") {
  for (const Pattern pattern : {Pattern::full, Pattern::topk}) {
    const Sizes s{1, 70, 2, 20};
    const Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2), v = normal_numbers(s, 3);
    KernelRun before(s, pattern, 5, 0, q, k, v, v);
    before.call.causal = true;
    for (const int rung : causal_rungs(pattern, gpu::Pass::forward, before.call)) {
      before.run(gpu::Pass::forward, rung);
      const std::vector<float> plain = before.o.host();
      for (const int changed : {1, 3, 33, 69}) {
        Numbers other_q = q, other_k = k, other_v = v;
        for (int u = 0; u < 2; ++u)
          for (int c = 0; c < s.D; ++c) {
            const size_t at = s.at(u, changed, c);
            other_q[at] += 5, other_k[at] = 100 - k[at], other_v[at] = -1000;
          }
        KernelRun run(s, pattern, 5, 0, other_q, other_k, other_v, v);
        run.call.causal = true;
        run.run(gpu::Pass::forward, rung);
        const std::vector<float> after = run.o.host();
        const auto end = ptrdiff_t(s.at(0, changed, 0));
        CHECK(std::equal(plain.begin(), plain.begin() + end, after.begin()));
        CHECK(!std::equal(plain.begin() + end, plain.end(), after.begin() + end));
      }
    }
  }
}

TEST_CASE("cuda causal: rungs without the mask refuse, and patterns that have none") {
  const Sizes s{1, 9, 1, 16};
  const Numbers x = normal_numbers(s, 1);
  for (const Pattern pattern : {Pattern::full, Pattern::topk}) {
    KernelRun run(s, pattern, 3, 0, x, x, x, x);
    run.call.causal = true;
    for (const gpu::Rung& rung : gpu::ladder())
      if (rung.has_pattern(pattern) && !rung.features.causal)
        CHECK_THROWS_WITH_AS(run.run(rung.pass, rung.number),
                             doctest::Contains("does not support this: no causal mask"),
                             InputError);
  }
  KernelRun run(s, Pattern::block, 3, 0, x, x, x, x);
  run.call.causal = true;
  CHECK_THROWS_AS(run.run(gpu::Pass::forward), InputError);
}

TEST_CASE("cuda causal: the same 50 steps on the device and on the CPU, and the same evaluation") {
  struct Case {
    Pattern pattern;
    int k, length, d, vocabulary;
    Objective objective = Objective::causal;
  };
  for (const Case& c : {Case{Pattern::full, 0, 7, 4, 7},
                        {Pattern::banded, 3, 7, 4, 7},
                        {Pattern::topk, 5, 7, 4, 7},
                        {Pattern::topk, 5, 11, 12, 300},  // a table and a loss as of a vocabulary
                        // Too long for the kernels of short sequences: rungs 04 and 05, 09 and 11.
                        {Pattern::full, 0, 66, 16, 40},
                        {Pattern::topk, 4, 66, 16, 40},
                        {Pattern::topk, 20, 66, 8, 40},  // no rung has lists so long
                        {Pattern::banded, 5, 66, 16, 40},
                        {Pattern::topk, 3, 11, 12, 7, Objective::pooled}}) {
    const std::string what =
        str(name_of(c.objective), " ", name_of(c.pattern), " of ", c.length, " tokens");
    const StepSettings settings{
        .model = text_model(c.objective, c.pattern, c.k, c.length, c.d, c.vocabulary, 0.1),
        .batch = 2,
        .form = "graph"};
    const int steps = c.length == 7 ? 50 : c.length < 20 ? 2 : 1;
    RandomRuns runs(settings, std::max(2, 2 * steps - 1), 7, 1);
    const auto stepper = gpu::CudaDevice().make_stepper(settings, runs.step_runs);
    Workers workers;
    Tape<float> tape(workers);
    CpuStepper cpu(tape, settings, runs.step_runs);
    runs.load(*stepper), runs.load(cpu);
    for (const Split split : {Split::train, Split::held_out}) {
      const auto got = stepper->evaluate(split, never_stop),
                 wanted = cpu.evaluate(split, never_stop);
      for (size_t r = 0; r < runs.all.size(); ++r) {
        CHECK_MESSAGE(std::abs((*got)[r].loss - (*wanted)[r].loss) <= 2e-6 * (*wanted)[r].loss,
                      what);
        CHECK_MESSAGE(std::abs((*got)[r].accuracy - (*wanted)[r].accuracy) <= 1e-9, what);
      }
    }
    std::vector<double> loss, gradient, logit;
    for (int n = 0; n < steps; ++n) {
      runs.load(*stepper), runs.load(cpu);
      gpu::shuffle_threads(uint64_t(n));
      const auto got = stepper->gradients(runs.epochs, n), wanted = cpu.gradients(runs.epochs, n);
      const auto made = stepper->train(runs.epochs, n, 1, never_stop);
      const auto made_by_cpu = cpu.train(runs.epochs, n, 1, never_stop);
      for (size_t r = 0; r < runs.all.size(); ++r) {
        const double by_cpu = double(made_by_cpu[r].losses.at(0));
        loss.push_back(std::abs(double(made[r].losses.at(0)) - by_cpu) / by_cpu);
        gradient.push_back(relative_distance(flat(got[r].parameters), flat(wanted[r].parameters)));
        logit.push_back(relative_distance(got[r].logits, wanted[r].logits));
        cpu.store(int(r), runs.all[r].model, runs.all[r].optimizer);
      }
    }
    gpu::shuffle_threads(0);
    const auto median_of = [](std::vector<double> x) {
      std::nth_element(x.begin(), x.begin() + ptrdiff_t(x.size() / 2), x.end());
      return x[x.size() / 2];
    };
    CHECK_MESSAGE(median_of(loss) <= 2e-6, what);
    CHECK_MESSAGE(median_of(gradient) <= 5e-6, what);
    CHECK_MESSAGE(median_of(logit) <= 5e-6, what);
    // Rounding may decide about a key or a slope, once in a while and in a small part.
    for (const std::vector<double>* values : {&loss, &gradient, &logit})
      for (const double x : *values) CHECK_MESSAGE(x <= 0.1, what);
  }
}

TEST_CASE("cuda causal: logits and gradients in several pieces") {
  // 1600 rows of 2700 words: more than fit into the memory of a piece.
  const StepSettings settings{
      .model = text_model(Objective::causal, Pattern::banded, 2, 16, 4, 2700, 0),
      .batch = 100,
      .form = "graph"};
  RandomRuns runs(settings, 100, 5, 1);
  const auto stepper = gpu::CudaDevice().make_stepper(settings, runs.step_runs);
  Workers workers;
  Tape<float> tape(workers);
  CpuStepper cpu(tape, settings, runs.step_runs);
  runs.load(*stepper), runs.load(cpu);
  const auto got = stepper->gradients(runs.epochs, 0), wanted = cpu.gradients(runs.epochs, 0);
  CHECK(std::abs(got[0].loss - wanted[0].loss) <= 2e-6f * wanted[0].loss);
  CHECK(relative_distance(got[0].logits, wanted[0].logits) <= 5e-6);
  CHECK(relative_distance(flat(got[0].parameters), flat(wanted[0].parameters)) <= 5e-6);
}

TEST_CASE("cuda causal: a run's bits do not depend on the runs beside it") {
  const StepSettings settings{
      .model = text_model(Objective::causal, Pattern::topk, 3, 9, 8, 300, 0.1),
      .batch = 2,
      .form = "graph"};
  std::vector<std::vector<float>> weights;
  for (const int count : {1, 2}) {
    RandomRuns runs(settings, 2, 5, count);
    const auto stepper = gpu::CudaDevice().make_stepper(settings, runs.step_runs);
    runs.load(*stepper);
    stepper->train(runs.epochs, 0, 1, never_stop);
    stepper->store(0, runs.all[0].model, runs.all[0].optimizer);
    weights.push_back(runs.all[0].weights());
  }
  CHECK(weights[0] == weights[1]);
}
