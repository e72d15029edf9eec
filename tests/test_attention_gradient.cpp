// Attention's gradients against differences of its own output, in double, and its shape errors.
#include "attention_run.h"

using namespace focus;
using namespace focus::test;

namespace {

// A number that changes with the set of kept keys.
uint64_t hash_of(const Mask& mask) {
  uint64_t hash = 1469598103934665603u;  // FNV-1a
  for (char c : mask) hash = (hash ^ uint64_t(c)) * 1099511628211u;
  return hash;
}

void check_pattern(const Sizes& s, AttentionSettings a, bool noise_on) {
  a.heads = s.H;
  Input<double> q("q", s.shape(), 1), k("k", s.shape(), 2), v("v", s.shape(), 3);
  GradientCheck settings;
  settings.noise = {.on = noise_on, .seed = 3, .step = 1};
  if (a.pattern == Pattern::topk || a.pattern == Pattern::bottomk)
    settings.choice = [&] { return hash_of(reference_mask(a, s, q.value, k.value)); };
  check_operation(
      [&](Tape<double>& tape) {
        return attention(tape, q.tensor(), copied(tape, k.tensor()), v.tensor(), a);
      },
      {&q, &k, &v}, settings);
}

}  // namespace

TEST_CASE("attention: gradient check of every pattern, with and without dropout") {
  for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::block, Pattern::topk,
                          Pattern::bottomk, Pattern::random})
    for (int k : {1, 2, 5, 6})
      for (double dropout : {0.0, 0.3}) {
        check_pattern({2, 6, 2, 3}, {pattern, k, 0, 2, dropout}, true);
        if (is_positional(pattern) && k < 5)
          check_pattern({1, 7, 1, 2}, {pattern, k, 3, 1, dropout}, true);
      }
  for (double scale : {0.25, 3.0})
    for (Pattern pattern : {Pattern::full, Pattern::block, Pattern::topk, Pattern::random})
      check_pattern({2, 6, 2, 3}, {pattern, 3, 0, 2, 0.2, scale}, true);
  for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::topk})
    for (int k : {1, 3, 6})
      for (double dropout : {0.0, 0.3})
        check_pattern({2, 6, 2, 3}, {pattern, k, 0, 2, dropout, 1, true}, true);
  check_pattern({1, 1, 1, 1}, {Pattern::full, 0, 0, 1, 0}, false);
  check_pattern({1, 1, 1, 1}, {Pattern::topk, 1, 0, 1, 0}, false);
}

TEST_CASE("attention: gradient check of lists longer than 32, and of more than 48 queries") {
  check_pattern({1, 36, 1, 2}, {Pattern::topk, 33, 0, 1, 0}, false);
  check_pattern({1, 51, 1, 2}, {Pattern::topk, 4, 0, 1, 0.2}, true);
  check_pattern({1, 51, 1, 2}, {Pattern::full, 0, 0, 1, 0.2}, true);
  check_pattern({1, 51, 1, 2}, {Pattern::full, 0, 0, 1, 0.2, 1, true}, true);
  check_pattern({1, 51, 1, 2}, {Pattern::topk, 4, 0, 1, 0.2, 1, true}, true);
}

TEST_CASE("attention: one tensor as queries, keys and values receives three gradients") {
  Input<double> x("x", {2, 5, 4}, 1);
  for (Pattern pattern : {Pattern::full, Pattern::block}) {
    const AttentionSettings a{pattern, 2, 0, 2, 0};
    check_operation(
        [&](Tape<double>& tape) { return attention(tape, x.tensor(), x.tensor(), x.tensor(), a); },
        {&x});
    check_operation(
        [&](Tape<double>& tape) {
          const Tensor<double> y = copied(tape, x.tensor());
          return attention(tape, y, y, y, a);
        },
        {&x});
  }
}

TEST_CASE(
    "attention: the weights of a query are divided by √D, by head width and not by channels") {
  // One query and two keys with scores 1·√D and 0: weights e/(e+1), 1/(e+1) for any D and H.
  for (int H : {1, 2})
    for (int D : {1, 4, 9}) {
      const Sizes s{1, 2, H, D};
      Numbers q(size_t(2 * H * D), 1), k(q.size());
      for (int u = 0; u < H; ++u)
        for (int c = 0; c < D; ++c) k[s.at(u, 0, c)] = 1 / std::sqrt(double(D));
      Numbers v(q.size());
      for (int u = 0; u < H; ++u) v[s.at(u, 0, 0)] = 1;
      const AttentionRun<double> run(s, {Pattern::full, 0, 0, H}, q, k, v, v);
      for (int u = 0; u < H; ++u)
        CHECK(run.o[s.at(u, 1, 0)] == doctest::Approx(std::exp(1) / (std::exp(1) + 1)));
    }
}

TEST_CASE("attention: shapes and settings that do not fit are refused") {
  Workers workers;
  Tape<float> tape(workers);
  tape.reset(true);
  Input<float> x("x", {2, 5, 6}, 1), longer("y", {2, 6, 6}, 1), flat("z", {10, 6}, 1);
  const auto run = [&](Input<float>& q, Input<float>& k, Input<float>& v, AttentionSettings a) {
    attention(tape, q.tensor(), k.tensor(), v.tensor(), a);
  };
  const AttentionSettings full{Pattern::full, 0, 0, 2, 0};
  CHECK_THROWS_WITH_AS(run(flat, x, x, full), "attention: q has shape [10, 6], expected (B,T,H·D)",
                       InputError);
  CHECK_THROWS_WITH_AS(run(x, longer, x, full),
                       "attention: k has shape [2, 6, 6], expected [2, 5, 6]", InputError);
  CHECK_THROWS_WITH_AS(run(x, x, longer, full),
                       "attention: v has shape [2, 6, 6], expected [2, 5, 6]", InputError);
  CHECK_THROWS_WITH_AS(run(x, x, x, {Pattern::full, 0, 0, 4, 0}),
                       "attention: 6 channels cannot be split among 4 heads", InputError);
  CHECK_THROWS_AS(run(x, x, x, {Pattern::topk, 6, 0, 2, 0}), InputError);
  for (double scale : {0.0, -1.0, double(NAN), double(INFINITY)})
    CHECK_THROWS_WITH_AS(run(x, x, x, {Pattern::full, 0, 0, 2, 0, scale}),
                         doctest::Contains("must be positive and finite"), InputError);
  const Tensor<float> fixed{x.shape, x.value.data(), nullptr};
  CHECK_THROWS_AS(attention(tape, x.tensor(), x.tensor(), fixed, full), InputError);
  tape.reset(false);
  CHECK_NOTHROW(attention(tape, fixed, fixed, fixed, full));
}
