// The linear operation: values, gradients of each input, threads.
#include <doctest/doctest.h>

#include <cstring>

#include "gradient_check.h"
#include "ops/linear.h"
#include "reference.h"

using namespace focus;
using namespace focus::test;

namespace {

// Everything that one forward and backward leaves, for rows × in → out.
template <class T>
struct Run {
  std::vector<T> y, dx, dw, db;

  Run(int rows, int in, int out, int threads) {
    Input<T> x("x", {rows, in}, 1), w("w", {out, in}, 2), b("b", {out}, 3);
    const std::vector<double> weights = random_numbers(size_t(rows * out), 4);
    Workers workers(threads);
    Tape<T> tape(workers);
    reset_poisoned(tape, {}, 100'000);
    const Tensor<T> result = linear(tape, copied(tape, x.tensor()), w.tensor(), b.tensor());
    CHECK(result.shape == Shape{rows, out});
    tape.backward(weighted_sum(tape, result, weights));
    y.assign(result.data, result.data + result.size());
    dx = x.gradient_value, dw = w.gradient_value, db = b.gradient_value;
  }
};

constexpr struct {
  int rows, in, out;
} sizes[] = {{1, 1, 1},    {2, 1, 3},  {1, 31, 2},   {5, 63, 33},
             {97, 64, 64}, {49, 2, 1}, {300, 20, 65}};

}  // namespace

TEST_CASE_TEMPLATE("linear: values and gradients against plain sums", T, float, double) {
  for (const auto& [rows, in, out] : sizes) {
    const Run<T> run(rows, in, out, 1);
    const Numbers x = rounded<T>(random_numbers(size_t(rows * in), 1)),
                  w = rounded<T>(random_numbers(size_t(out * in), 2)),
                  b = rounded<T>(random_numbers(size_t(out), 3)),
                  dy = rounded<T>(random_numbers(size_t(rows * out), 4));
    Numbers dx(x.size()), dw(w.size()), db(b.size());
    for (size_t m = 0; m < size_t(rows); ++m)
      for (size_t o = 0; o < size_t(out); ++o) {
        const double d = dy[m * size_t(out) + o];
        db[o] += d;
        for (size_t i = 0; i < size_t(in); ++i) {
          dx[m * size_t(in) + i] += d * w[o * size_t(in) + i];
          dw[o * size_t(in) + i] += d * x[m * size_t(in) + i];
        }
      }
    // Rounding of sums of up to 300 terms; the largest measured is 5 units of the largest element.
    CHECK(difference("y", {rows, out}, run.y.data(), reference_linear(x, w, b, in, out), 10) == "");
    CHECK(difference("dx", {rows, in}, run.dx.data(), dx, 10) == "");
    CHECK(difference("dw", {out, in}, run.dw.data(), dw, 10) == "");
    CHECK(difference("db", {out}, run.db.data(), db, 10) == "");
  }
}

TEST_CASE("linear: gradient check, with rows in several dimensions") {
  Input<double> x("x", {2, 3, 7}, 1), w("w", {5, 7}, 2), b("b", {5}, 3);
  check_operation(
      [&](Tape<double>& tape) {
        const Tensor<double> y =
            linear(tape, x.tensor(), copied(tape, w.tensor()), copied(tape, b.tensor()));
        CHECK(y.shape == Shape{2, 3, 5});
        return y;
      },
      {&x, &w, &b});
}

TEST_CASE_TEMPLATE("linear: the same bytes for 1, 2 and 3 threads", T, float, double) {
  for (const auto& [rows, in, out] : sizes) {
    const Run<T> one(rows, in, out, 1);
    for (int threads : {2, 3}) {
      const Run<T> more(rows, in, out, threads);
      CHECK(one.y == more.y);
      CHECK(one.dx == more.dx);
      CHECK(one.dw == more.dw);
      CHECK(one.db == more.db);
    }
  }
}

TEST_CASE("linear: inputs that want no gradient are left alone") {
  Input<double> x("x", {2, 3}, 1), w("w", {4, 3}, 2), b("b", {4}, 3);
  const std::vector<double> weights = random_numbers(8, 4);
  Workers workers;
  Tape<double> tape(workers);
  tape.reset(true);
  const Tensor<double> fixed{x.shape, x.value.data(), nullptr};
  tape.backward(weighted_sum(tape, linear(tape, fixed, w.tensor(), b.tensor()), weights));
  CHECK(x.gradient_value == std::vector<double>(6, 0.0));
  CHECK(b.gradient_value[0] == weights[0] + weights[4]);
}

TEST_CASE("linear: shapes that do not fit are named, both of them") {
  Workers workers;
  Tape<float> tape(workers);
  tape.reset(true);
  Input<float> x("x", {2, 3}, 1), w("w", {4, 5}, 2), b("b", {4}, 3), w3("w", {4, 3}, 2),
      b5("b", {5}, 3);
  CHECK_THROWS_WITH_AS(linear(tape, x.tensor(), w.tensor(), b.tensor()),
                       "linear: weight has shape [4, 5], expected [4, 3]", InputError);
  CHECK_THROWS_WITH_AS(linear(tape, x.tensor(), w3.tensor(), b5.tensor()),
                       "linear: bias has shape [5], expected [4]", InputError);
}
