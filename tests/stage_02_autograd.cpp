// Stage 02: the tape (order, sums, memory of gradients) and the gradients of linear and layer norm.
#include <doctest/doctest.h>

#include <string>

#include "gradient_check.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"

using namespace focus;
using namespace focus::test;

namespace {

using Numbers = std::vector<double>;

// y = factor · x. Its backward writes its name into a log, and spoils dy once it is used up:
// whoever gets that memory next has to zero it.
Tensor<double> times(Tape<double>& tape, double factor, const Tensor<double>& x, char name,
                     std::string& log) {
  const Tensor<double> y = tape.make(x.shape);
  for (size_t i = 0; i < x.size(); ++i) y.data[i] = factor * x.data[i];
  tape.record(y, [=, &tape, &log] {
    log += name;
    double *dy = tape.gradient(y), *dx = tape.gradient(x);
    for (size_t i = 0; i < x.size(); ++i) dx[i] += factor * dy[i];
    for (size_t i = 0; i < x.size(); ++i) dy[i] = 1e6;
  });
  return y;
}

Tensor<double> sum(Tape<double>& tape, const Tensor<double>& a, const Tensor<double>& b) {
  const Tensor<double> y = tape.make(a.shape);
  for (size_t i = 0; i < a.size(); ++i) y.data[i] = a.data[i] + b.data[i];
  tape.record(y, [=, &tape] {
    const double* dy = tape.gradient(y);
    for (const Tensor<double>& input : {a, b}) {
      double* d = tape.gradient(input);
      for (size_t i = 0; i < y.size(); ++i) d[i] += dy[i];
    }
  });
  return y;
}

// The first n numbers of x, zeros after them.
Tensor<double> resized(Tape<double>& tape, const Tensor<double>& x, int n) {
  const Tensor<double> y = tape.make({n});
  const size_t both = std::min(size_t(n), x.size());
  for (size_t i = 0; i < y.size(); ++i) y.data[i] = i < both ? x.data[i] : 0;
  tape.record(y, [=, &tape] {
    const double* dy = tape.gradient(y);
    double* dx = tape.gradient(x);
    for (size_t i = 0; i < both; ++i) dx[i] += dy[i];
  });
  return y;
}

struct Fixture {
  Workers workers;
  Tape<double> tape{workers};
  std::string log;
  Input<double> x{"x", {3}, Numbers{1, -2, 4}};
  Input<double> big{"big", {5}, Numbers{1, 2, 3, 4, 5}};
  Numbers weights{2, 3, 5}, big_weights{1, 1, 2, 2, 7};
  Fixture() { tape.reset(true); }
  Tensor<double> times(double factor, const Tensor<double>& t, char name) {
    return ::times(tape, factor, t, name, log);
  }
};

void check_gradient(const Parameter<double>& x, const Numbers& wanted) {
  CHECK(difference("gradient of " + x.name, x.shape, x.gradient_value.data(), wanted, 4) == "");
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "the tape plays from its end, and a tensor used twice gets the sum") {
  //        ┌ b: ·7 ──┐
  // x ─ a: ·10       sum ─ weighted sum          dx = 10 · (7 + 100) · weights
  //        └ c: ·100 ┘
  const Tensor<double> a = times(10, x.tensor(), 'a');
  const Tensor<double> b = times(7, a, 'b'), c = times(100, a, 'c');
  const Tensor<double> loss = weighted_sum(tape, sum(tape, b, c), weights);
  tape.backward(loss);
  INFO("a producer's backward runs after those of all its consumers");
  CHECK(log == "cba");
  check_gradient(x, {2140, 3210, 5350});
  INFO("the memory of a's gradient now belongs to others: who asked for it would get theirs");
  CHECK(a.gradient->data == nullptr);
}

TEST_CASE_FIXTURE(Fixture, "an output that nobody used is passed over, what is before it is not") {
  const Tensor<double> used = times(2, x.tensor(), 'u');
  times(3, used, 'n');
  const Tensor<double> loss = weighted_sum(tape, used, weights);
  times(5, used, 'm');
  tape.backward(loss);
  CHECK(log == "u");
  check_gradient(x, {4, 6, 10});
}

TEST_CASE_FIXTURE(Fixture,
                  "a parameter's gradient adds up over passes until the caller zeroes it") {
  for (int pass = 1; pass <= 3; ++pass) {
    tape.reset(true);
    tape.backward(weighted_sum(tape, times(2, x.tensor(), 'a'), weights));
    check_gradient(x, {4.0 * pass, 6.0 * pass, 10.0 * pass});
  }
}

TEST_CASE_FIXTURE(Fixture, "gradient memory is used again: zeroed, and by one tensor at a time") {
  // A long chain, with a second input that joins in the middle and makes two gradients live at
  // once.
  Tensor<double> y = x.tensor();
  for (int i = 0; i < 6; ++i) y = times(2, y, 'a');
  Tensor<double> side = times(1, x.tensor(), 's');
  for (int i = 0; i < 3; ++i) side = times(3, side, 's');
  y = sum(tape, y, side);
  for (int i = 0; i < 4; ++i) y = times(-1, y, 'b');
  tape.backward(weighted_sum(tape, y, weights));
  INFO("dx = (2⁶ + 3³) · weights; too large: not zeroed; else: two tensors share memory");
  check_gradient(x, {91 * 2, 91 * 3, 91 * 5});
}

TEST_CASE_FIXTURE(Fixture, "a long chain runs backward in the memory of a few gradients") {
  // Forward takes 640 of the arena's first 1024 KiB, so 40 gradients would need a second block.
  constexpr int size = 2048, links = 40;
  Input<double> wide("wide", {size}, 1);
  Tensor<double> y = wide.tensor();
  for (int i = 0; i < links; ++i) y = times(1, y, 'a');
  const Numbers ones(size, 1.0);  // the tape refers to them
  const Tensor<double> loss = weighted_sum(tape, y, ones);
  const size_t before = tape.arena().capacity();
  tape.backward(loss);
  CHECK_MESSAGE(tape.arena().capacity() == before,
                str("backward of ", links, " equal tensors: got ", tape.arena().capacity() >> 10,
                    " KiB in the arena, wanted ", before >> 10));
}

TEST_CASE_FIXTURE(Fixture, "free memory goes to gradients of its own size") {
  // Forward takes 641 of the arena's first 1024 KiB, two large gradients and a small one 320 more.
  // A third large one would need a second block.
  constexpr int large = 20'000, small = 1000;
  Input<double> wide("wide", {large}, 1);
  Tensor<double> y = wide.tensor();
  for (int i = 0; i < 2; ++i) y = times(1, resized(tape, resized(tape, y, small), large), 'a');
  const Numbers ones(large, 1.0);
  const Tensor<double> loss = weighted_sum(tape, y, ones);
  const size_t before = tape.arena().capacity();
  tape.backward(loss);
  INFO("a large buffer that a small gradient takes is a small one when it comes back");
  CHECK_MESSAGE(tape.arena().capacity() == before,
                str("backward: got ", tape.arena().capacity() >> 10, " KiB in the arena, wanted ",
                    before >> 10));
}

TEST_CASE_FIXTURE(Fixture, "gradients of different sizes never share memory") {
  const Tensor<double> a = times(2, times(2, x.tensor(), 'a'), 'a'),
                       b = times(2, times(2, big.tensor(), 'b'), 'b');
  const Tensor<double> loss = sum(tape, weighted_sum(tape, times(2, a, 'a'), weights),
                                  weighted_sum(tape, times(2, b, 'b'), big_weights));
  tape.backward(loss);
  check_gradient(x, {16, 24, 40});
  check_gradient(big, {8, 8, 16, 16, 56});
}

TEST_CASE("linear: gradients of input, weight and bias against differences") {
  constexpr int sizes[][3] = {{1, 1, 1}, {2, 3, 1}, {3, 5, 7}, {50, 2, 3}};
  for (const auto& size : sizes) {
    const int rows = size[0], in = size[1], out = size[2];
    Input<double> x("x", {rows, in}, 1), w("weight", {out, in}, 2), b("bias", {out}, 3);
    INFO("linear of ", rows, " rows, ", in, " → ", out);
    check_operation(
        [&](Tape<double>& tape) { return linear(tape, x.tensor(), w.tensor(), b.tensor()); },
        {&x, &w, &b});
  }
}

TEST_CASE("layer norm: the gradient of its input against differences") {
  for (int C : {2, 3, 17, 33}) {
    Input<double> x("x", {2, 2, C}, uint32_t(C));
    INFO("layer norm over ", C, " channels: mean and variance depend on every x");
    check_operation([&](Tape<double>& tape) { return layer_norm(tape, x.tensor(), 0.01); }, {&x});
  }
}

TEST_CASE("operations add: x, weight and bias used twice, layer norm beside a residual") {
  // y = linear(linear(x)) + layer_norm(linear(x)), the same square weight each time.
  Input<double> x("x", {3, 4}, 1), w("weight", {4, 4}, 2), b("bias", {4}, 3);
  INFO("each use of a tensor adds its part to the gradient; to set it loses the others' parts");
  check_operation(
      [&](Tape<double>& tape) {
        const Tensor<double> once = linear(tape, x.tensor(), w.tensor(), b.tensor());
        const Tensor<double> normed = layer_norm(tape, once, 0.01);
        const Tensor<double> twice = linear(tape, once, w.tensor(), b.tensor());
        return sum(tape, sum(tape, normed, twice), once);
      },
      {&x, &w, &b});
}
