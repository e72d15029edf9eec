// Stage 17: a factor on the scores, the entropy of a row, learning rates of their own.
#include <doctest/doctest.h>

#include <atomic>
#include <cmath>

#include "analysis/sharpness.h"
#include "attention_run.h"
#include "golden_run.h"
#include "train/cpu_stepper.h"
#include "train/run.h"

using namespace focus;
using namespace focus::test;

namespace {

Numbers times(Numbers x, double factor) {
  for (double& value : x) value *= factor;
  return x;
}

RunSettings small(Pattern pattern) {
  RunSettings s;
  s.attention = pattern, s.k = uses_k(pattern) ? 3 : 0;
  s.blocks = 2, s.heads = 2, s.d_model = 6, s.d_mlp = 10, s.length = 7;
  s.train_size = 40, s.val_size = 5, s.batch = 8, s.lr = 0.5, s.dropout = 0.1, s.clip = 0;
  return s;
}

Run trained(const RunSettings& s, int epochs) {
  Run run(s, 5, make_run_data(s, 5));
  Workers workers;
  Tape<float> tape(workers);
  for (int e = 0; e < epochs; ++e) run_epoch(run, tape, std::atomic<bool>{false});
  return run;
}

bool is_qk(const Parameter<float>& p) {
  return p.name.find("W_q") != std::string::npos || p.name.find("W_k") != std::string::npos;
}

// The largest |b - factor · a| of a parameter's numbers, relative to its largest; with the factor 1
// for all but W_Q and W_K.
double distance(Run& a, Run& b, double factor) {
  double worst = 0;
  for (size_t p = 0; p < a.model().parameters().size(); ++p) {
    const Parameter<float>&x = a.model().parameters()[p], &y = b.model().parameters()[p];
    double largest = 0, off = 0;
    for (size_t i = 0; i < x.value.size(); ++i) {
      const double wanted = (is_qk(x) ? factor : 1) * double(x.value[i]);
      largest = std::max(largest, std::abs(wanted));
      const double error = std::abs(double(y.value[i]) - wanted);
      off = error <= off ? off : error;  // NaN stays
    }
    if (!(off <= worst * largest)) worst = off / largest;
  }
  return worst;
}

}  // namespace

TEST_CASE("two keys, scores C √D / √D and 0: weights e^C / (e^C + 1) and the rest") {
  for (double C : {0.5, 1.0, 4.0})
    for (int D : {1, 4, 9}) {
      const Sizes s{1, 2, 1, D};
      Numbers q(size_t(2 * D), 1), k(q.size()), v(q.size());
      for (int c = 0; c < D; ++c) k[s.at(0, 0, c)] = 1 / std::sqrt(double(D));
      v[s.at(0, 0, 0)] = 1;
      const AttentionRun<double> run(s, {Pattern::full, 0, 0, 1, 0, C}, q, k, v, v);
      CHECK_MESSAGE(run.o[s.at(0, 1, 0)] == doctest::Approx(std::exp(C) / (std::exp(C) + 1)),
                    "C = ", C, ", D = ", D);
    }
}

TEST_CASE_TEMPLATE("the factor does what queries C times as large do, and reaches their gradient",
                   T, float, double) {
  const Sizes s{2, 9, 2, 5};
  const Numbers q = quarters_for(s, 1), k = quarters_for(s, 2), v = numbers_for(s, 3),
                d_o = numbers_for(s, 4);
  for (double C : {0.5, 4.0})
    for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::block, Pattern::topk}) {
      const AttentionSettings by_factor{pattern, 3, 0, 2, 0, C}, plain{pattern, 3, 0, 2, 0};
      const AttentionRun<T> got(s, by_factor, q, k, v, d_o);
      const AttentionRun<T> as_queries(s, plain, times(q, C), k, v, d_o);
      AttentionResult wanted;
      const auto numbers = [](const std::vector<T>& x) { return Numbers(x.begin(), x.end()); };
      wanted.o = numbers(as_queries.o), wanted.dv = numbers(as_queries.dv);
      wanted.dk = numbers(as_queries.dk);
      wanted.dq = times(numbers(as_queries.dq), C);  // the chain rule's own C
      CHECK(difference(str(name_of(pattern), ", C = ", C, ": "), s, got, wanted, 16) == "");
    }
}

TEST_CASE("what the authors' model computes with a factor on its scores") {
  for (const char* name : {"full_scale4", "topk_scale05"}) CHECK(wrong_golden(name) == "");
}

TEST_CASE("entropy: none of one, ln n of n equal ones, and a row by hand") {
  CHECK(softmax_entropy(std::vector<double>{7}) == 0);
  for (int n : {2, 5, 40})
    CHECK(softmax_entropy(std::vector<double>(size_t(n), -3)) ==
          doctest::Approx(std::log(double(n))));
  // p = (0.7, 0.2, 0.1)
  const std::vector<double> s{std::log(7.0), std::log(2.0), 0};
  CHECK(softmax_entropy(s) == doctest::Approx(0.801818552543));
}

TEST_CASE("entropy: a key without any weight adds nothing") {
  CHECK(softmax_entropy(std::vector<double>{0, -1e4}) == 0);
  CHECK(softmax_entropy(std::vector<double>{1, 1, -1e4, 1}) == doctest::Approx(std::log(3.0)));
}

TEST_CASE("entropy: the sharper, the less; of top-k at most ln k") {
  Rng rng(5, Stream::analysis, 3);
  std::vector<double> s(40);
  for (double& x : s) x = rng.normal();
  double last = std::log(40.0) + 1e-12;
  for (double C : {0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0}) {
    std::vector<double> scaled = s;
    for (double& x : scaled) x *= C;
    const double entropy = softmax_entropy(scaled);
    CHECK_MESSAGE(entropy < last, "C = ", C);
    last = entropy;
  }
  const RunSettings top = small(Pattern::topk);
  Run run(top, 5, make_run_data(top, 5));
  Workers workers;
  const std::vector<int> tokens(run.data().train.tokens.begin(), run.data().train.tokens.end());
  const std::vector<int> labels(run.data().train.labels.begin(), run.data().train.labels.end());
  const Sharpness m =
      measure_sharpness(run.model(), tokens.data(), labels.data(), int(labels.size()), workers);
  CHECK(m.entropy > 0);
  CHECK(m.entropy <= std::log(3.0));
  CHECK(m.qk_gradient > 0);
  CHECK(m.qk_gradient < m.other_gradient);
}

TEST_CASE_TEMPLATE("SGD: each parameter at its own rate, clipped all the same", T, float, double) {
  std::deque<Parameter<T>> p;
  for (const double factor : {1.0, 4.0, 0.5, 0.0}) {
    p.emplace_back(str("w", p.size()), Shape{3});
    p.back().value = as<T>({1, -2, 0.5});
    p.back().gradient_value = as<T>({0.25, 1, -2});
    p.back().rate_factor = factor;
  }
  Optimizer<T> sgd(OptimizerKind::sgd, p);
  for (int step = 1; step <= 3; ++step) {
    sgd.step(p, 0.125, 0.5);
    for (const Parameter<T>& each : p) {
      const double rate = 0.125 * 0.5 * each.rate_factor * step;
      const std::vector<double> wanted{1 - rate * 0.25, -2 - rate, 0.5 + rate * 2};
      CHECK(difference(str(each.name, ", step ", step, ": "), Shape{3}, each.value.data(), wanted,
                       2) == "");
    }
  }
}

TEST_CASE("frozen queries and keys keep their bytes, and all else learns") {
  for (OptimizerKind optimizer : {OptimizerKind::sgd, OptimizerKind::adam}) {
    RunSettings s = small(Pattern::topk);
    s.optimizer = optimizer, s.lr = optimizer == OptimizerKind::adam ? 0.01 : 0.5;
    s.freeze_qk = true, s.clip = 0.5;
    Run before = trained(s, 0), after = trained(s, 3);
    for (size_t p = 0; p < before.model().parameters().size(); ++p) {
      const Parameter<float>&x = before.model().parameters()[p], &y = after.model().parameters()[p];
      CHECK_MESSAGE((x.value == y.value) == is_qk(x), x.name);
    }
  }
}

// C · Q Kᵀ: with W_Q and W_K √C times larger the scores are the same. Each one's gradient is then
// √C times smaller, and a rate C times larger makes its step √C times larger: it stays √C times the
// other, step by step. Not so with a clip, whose norm counts the smaller gradient, nor with Adam,
// which takes no notice of a gradient's size (there the rate would have to be √C).
TEST_CASE("qk-scale √C and qk-rate C are score-scale C, with SGD and without a clip") {
  for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::topk, Pattern::random})
    for (double C : {4.0, 0.25, 3.0}) {
      RunSettings by_factor = small(pattern), by_start = by_factor;
      by_factor.score_scale = C;
      by_start.qk_scale = std::sqrt(C), by_start.qk_rate = C;
      Run a = trained(by_factor, 2), b = trained(by_start, 2);
      INFO(str(name_of(pattern), ", C = ", C));
      // Powers of 2 change no digit. Else rounding differs, and ten steps let it grow.
      CHECK(distance(a, b, std::sqrt(C)) <= (C == 3 ? 1e-4 : 0));

      if (C != 4) continue;
      by_factor.clip = by_start.clip = 0.1;
      Run c = trained(by_factor, 2), d = trained(by_start, 2);
      CHECK(distance(c, d, std::sqrt(C)) > 1e-5);
    }
}
