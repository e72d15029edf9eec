// Embedding with positions, the mean over tokens, and cross-entropy: the ends of the model.
#include <doctest/doctest.h>

#include "gradient_check.h"
#include "ops/cross_entropy.h"
#include "ops/embedding.h"
#include "ops/mean_tokens.h"
#include "reference.h"

using namespace focus;
using namespace focus::test;

TEST_CASE_TEMPLATE("positions: sine at even, cosine at odd channels, base 10000", T, float,
                   double) {
  for (int C : {1, 2, 5, 64}) {
    const int length = 101;
    std::vector<T> table(size_t(length * C));
    poison(table);
    fill_positions(table.data(), length, C);
    std::vector<double> wanted;
    for (int t = 0; t < length; ++t)
      for (int c = 0; c < C; ++c) {
        const double angle = t / std::pow(10000.0, double(c - c % 2) / C);
        wanted.push_back(c % 2 ? std::cos(angle) : std::sin(angle));
      }
    // The frequencies may be computed in float (as PyTorch models do): that turns an angle of up to
    // 100 by 100 rounding errors, in float.
    CHECK(difference("positions", {length, C}, table.data(), wanted,
                     sizeof(T) == 4 ? 150 : 150 * 0x1p29) == "");
    CHECK(table[0] == 0);  // position 0: sin 0, cos 0, …
    if (C > 1) CHECK(table[1] == 1);
  }
}

TEST_CASE_TEMPLATE("embedding: rows times √C plus positions; equal tokens add up", T, float,
                   double) {
  const int B = 5, length = 3, V = 7, C = 33;
  const std::vector<int> tokens{0, 6, 3, 3, 3, 0, 1, 2, 1, 5, 6, 6, 0, 0, 2};  // no 4
  const Numbers dy = rounded<T>(random_numbers(size_t(B * length * C), 3));
  for (int threads : {1, 2, 3}) {
    Input<T> table("table", {V, C}, 1), positions("positions", {length, C}, 2);
    Workers workers(threads);
    Tape<T> tape(workers);
    tape.reset(true);
    const Tensor<T> fixed{positions.shape, positions.value.data(), nullptr};
    const Tensor<T> y = embedding(tape, tokens.data(), B, table.tensor(), fixed);
    CHECK(y.shape == Shape{B, length, C});
    Numbers wanted, d_table(size_t(V * C));
    for (int i = 0; i < B * length; ++i)
      for (int c = 0; c < C; ++c) {
        const size_t at = size_t(tokens[size_t(i)] * C + c);
        wanted.push_back(std::sqrt(double(C)) * double(table.value[at]) +
                         double(positions.value[size_t(i % length * C + c)]));
        d_table[at] += std::sqrt(double(C)) * dy[size_t(i * C + c)];
      }
    CHECK(difference("y", y, wanted, 2) == "");
    tape.backward(weighted_sum(tape, y, dy));
    CHECK(difference("d_table", {V, C}, table.gradient_value.data(), d_table, 3) == "");
    for (int c = 0; c < C; ++c) CHECK(table.gradient_value[size_t(4 * C + c)] == 0);
  }
}

TEST_CASE("embedding: tokens outside the vocabulary are named with their place") {
  Input<float> table("table", {7, 2}, 1), positions("positions", {3, 2}, 2), other("p", {3, 4}, 2);
  Workers workers;
  Tape<float> tape(workers);
  tape.reset(true);
  std::vector<int> tokens{0, 1, 2, 3, 7, 5};
  CHECK_THROWS_WITH_AS(embedding(tape, tokens.data(), 2, table.tensor(), positions.tensor()),
                       "embedding: token 7 at row 1, position 1 is outside the vocabulary of 7",
                       InputError);
  tokens[4] = -1;
  CHECK_THROWS_AS(embedding(tape, tokens.data(), 2, table.tensor(), positions.tensor()),
                  InputError);
  CHECK_THROWS_WITH_AS(embedding(tape, tokens.data(), 2, table.tensor(), other.tensor()),
                       "embedding: positions has shape [3, 4], expected [3, 2]", InputError);
}

TEST_CASE_TEMPLATE("mean over tokens, not over channels or rows", T, float, double) {
  for (int length : {1, 2, 33}) {
    const int B = 5, C = 3;
    Input<T> x("x", {B, length, C}, 1);
    Workers workers(2);
    Tape<T> tape(workers);
    tape.reset(true);
    const Tensor<T> y = mean_tokens(tape, x.tensor());
    CHECK(y.shape == Shape{B, C});
    Numbers wanted(size_t(B * C));
    for (int b = 0; b < B; ++b)
      for (int t = 0; t < length; ++t)
        for (int c = 0; c < C; ++c)
          wanted[size_t(b * C + c)] += double(x.value[size_t((b * length + t) * C + c)]) / length;
    CHECK(difference("mean", y, wanted, 2) == "");
    const Numbers dy = random_numbers(size_t(B * C), 2);
    tape.backward(weighted_sum(tape, y, dy));
    Numbers dx;
    for (int i = 0; i < B * length; ++i)
      for (int c = 0; c < C; ++c) dx.push_back(dy[size_t(i / length * C + c)] / length);
    CHECK(difference("dx", x.shape, x.gradient_value.data(), dx, 2) == "");
  }
  Workers workers;
  Tape<T> tape(workers);
  Input<T> flat("x", {2, 3}, 1);
  CHECK_THROWS_WITH_AS(mean_tokens(tape, flat.tensor()),
                       "mean_tokens: x has shape [2, 3], not (B,T,C)", InputError);
}

TEST_CASE_TEMPLATE("cross-entropy: values and gradient", T, float, double) {
  for (int N : {1, 2, 5, 33}) {
    const int B = 7;
    Numbers logits = random_numbers(size_t(B * N), 1);
    for (double& x : logits) x = double(T(4 * x));
    std::vector<int> labels;
    for (int b = 0; b < B; ++b) labels.push_back(b * 3 % N);
    Input<T> x("logits", {B, N}, logits);
    Workers workers;
    Tape<T> tape(workers);
    tape.reset(true);
    const Tensor<T> loss = cross_entropy(tape, x.tensor(), labels.data());
    const double wanted = reference_cross_entropy(logits, labels, N);
    CHECK(difference("loss", loss, {wanted}, 2) == "");
    tape.backward(loss);
    Numbers gradient;
    double total = 0;
    for (int b = 0; b < B; ++b) {
      double sum = 0;
      for (int n = 0; n < N; ++n) sum += std::exp(logits[size_t(b * N + n)]);
      for (int n = 0; n < N; ++n) {
        gradient.push_back((std::exp(logits[size_t(b * N + n)]) / sum - (n == labels[size_t(b)])) /
                           B);
        total += std::abs(gradient.back());
      }
      CHECK(std::abs(row_cross_entropy(x.value.data() + b * N, N, labels[size_t(b)]) -
                     reference_cross_entropy(
                         Numbers(logits.begin() + b * N, logits.begin() + (b + 1) * N),
                         {labels[size_t(b)]}, N)) < 1e-14 * 30);
    }
    if (N > 1) CHECK(total > 0.1);
    CHECK(difference("gradient", {B, N}, x.gradient_value.data(), gradient, 2) == "");
  }
}

TEST_CASE_TEMPLATE("cross-entropy: extreme logits, NaN and bad labels", T, float, double) {
  const auto loss = [](std::vector<T> logits, int label) {
    return row_cross_entropy(logits.data(), int(logits.size()), label);
  };
  CHECK(loss({T(1e30), 0}, 0) == 0);
  CHECK(loss({T(1e4), 0}, 1) == 1e4);
  CHECK(loss({T(-1e4), T(-1e4)}, 1) == doctest::Approx(std::log(2.0)));
  CHECK(std::isnan(loss({T(NAN), 1}, 1)));
  CHECK(std::isnan(loss({1, T(NAN), 1}, 0)));
  CHECK_FALSE(std::isfinite(loss({T(INFINITY), 1}, 1)));

  Workers workers;
  Tape<T> tape(workers);
  tape.reset(true);
  Input<T> x("logits", {2, 3}, 1);
  for (int bad : {3, -1}) {
    const int labels[] = {2, bad};
    CHECK_THROWS_AS(cross_entropy(tape, x.tensor(), labels), InputError);
  }
  Input<T> empty("logits", {0, 3}, 1);
  CHECK_THROWS_WITH_AS(cross_entropy(tape, empty.tensor(), nullptr),
                       "cross_entropy: logits have shape [0, 3]", InputError);
}

TEST_CASE("inputs that want no gradient are left alone") {
  std::vector<double> x = random_numbers(12, 1);
  const std::vector<int> tokens{0, 1, 2, 1}, labels{2, 0, 1, 1};
  Workers workers;
  Tape<double> tape(workers);
  tape.reset(true);
  const Tensor<double> table{{4, 3}, x.data(), nullptr}, positions{{2, 3}, x.data(), nullptr},
      sequences{{2, 2, 3}, x.data(), nullptr};
  const std::vector<double> weights = random_numbers(12, 2);
  tape.backward(weighted_sum(tape, embedding(tape, tokens.data(), 2, table, positions), weights));
  tape.backward(weighted_sum(tape, mean_tokens(tape, sequences), weights));
  tape.backward(cross_entropy(tape, table, labels.data()));
  CHECK(x == random_numbers(12, 1));
}

TEST_CASE("gradient checks of embedding, mean and cross-entropy") {
  Input<double> table("table", {4, 3}, 1), positions("positions", {5, 3}, 2);
  const std::vector<int> tokens{0, 3, 3, 1, 0, 1, 1, 3, 0, 3};
  const Tensor<double> fixed{positions.shape, positions.value.data(), nullptr};
  check_operation(
      [&](Tape<double>& tape) { return embedding(tape, tokens.data(), 2, table.tensor(), fixed); },
      {&table});
  Input<double> x("x", {2, 5, 3}, 3);
  check_operation([&](Tape<double>& tape) { return mean_tokens(tape, copied(tape, x.tensor())); },
                  {&x});
  Input<double> logits("logits", {3, 5}, 4);
  const std::vector<int> labels{4, 0, 2};
  check_operation(
      [&](Tape<double>& tape) {
        return cross_entropy(tape, copied(tape, logits.tensor()), labels.data());
      },
      {&logits});
}
