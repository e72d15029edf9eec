// Layer normalisation: values, what epsilon does, gradients.
#include <doctest/doctest.h>

#include "gradient_check.h"
#include "ops/layer_norm.h"
#include "reference.h"

using namespace focus;
using namespace focus::test;

namespace {

template <class T>
std::vector<T> normalised(const Shape& shape, const Numbers& x, double epsilon, int threads = 1) {
  Workers workers(threads);
  Tape<T> tape(workers);
  tape.reset(false);
  Input<T> input("x", shape, x);
  const Tensor<T> y = layer_norm(tape, input.tensor(), epsilon);
  CHECK(y.shape == shape);
  return std::vector<T>(y.data, y.data + y.size());
}

}  // namespace

TEST_CASE_TEMPLATE("layer norm: values for awkward widths, more rows than a piece", T, float,
                   double) {
  for (int C : {1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 130})
    for (double epsilon : {1e-5, 0.0, 0.5}) {
      if (C == 1 && epsilon == 0) continue;  // 0 / 0, see below
      const int rows = 67;
      Numbers x = rounded<T>(random_numbers(size_t(rows * C), uint32_t(C)));
      // C = 2 and epsilon = 0: rows whose numbers lie close would multiply rounding errors.
      if (C == 2)
        for (size_t i = 0; i < x.size(); i += 2) x[i] = double(T(x[i + 1] + 1));
      // Measured: 3 units of the largest element.
      CHECK(difference(str("C = ", C), {rows, C}, normalised<T>({rows, C}, x, epsilon).data(),
                       reference_layer_norm(x, C, epsilon), 20) == "");
      CHECK(normalised<T>({rows, C}, x, epsilon, 2) == normalised<T>({rows, C}, x, epsilon));
    }
}

TEST_CASE_TEMPLATE("layer norm: a large mean costs no digits of the variance", T, float, double) {
  // Halves above 4096: exact in float, and the two-pass variance sees only the differences.
  const int C = 33;
  Numbers x = quarters(C, 1), shifted = x;
  for (double& value : shifted) value += 4096;
  CHECK(difference("shifted", {1, C}, normalised<T>({1, C}, shifted, 1e-5).data(),
                   reference_layer_norm(x, C, 1e-5), 2000) == "");  // the mean rounds at 4096
}

TEST_CASE_TEMPLATE("layer norm: epsilon is added to the variance, under the root", T, float,
                   double) {
  // Mean 0, variance 0.01: y = ±0.1 / sqrt(0.01 + 0.03) = ±0.5. Outside the root it would be ±0.77.
  const std::vector<T> y = normalised<T>({1, 2}, {0.1, -0.1}, 0.03);
  CHECK(difference("y", {1, 2}, y.data(), {0.5, -0.5}, 2) == "");
}

TEST_CASE_TEMPLATE("layer norm: a constant row gives 0, and NaN with epsilon 0", T, float, double) {
  for (int C : {1, 2, 33}) {
    Numbers x(size_t(2 * C), 0.5);
    for (int c = 0; c < C; ++c) x[size_t(c)] = c;  // row 0 is ordinary
    const std::vector<T> with = normalised<T>({2, C}, x, 1e-5);
    const std::vector<T> without = normalised<T>({2, C}, x, 0);
    for (int c = 0; c < C; ++c) {
      CHECK(with[size_t(C + c)] == 0);
      CHECK(std::isnan(without[size_t(C + c)]));
      if (C > 1) CHECK_FALSE(std::isnan(without[size_t(c)]));
    }
  }
}

TEST_CASE_TEMPLATE("layer norm: NaN and infinity stay visible, in their own row only", T, float,
                   double) {
  for (double bad : {double(NAN), double(INFINITY), -double(INFINITY)}) {
    Numbers x = random_numbers(3 * 17, 4);
    x[17 + 5] = bad;
    const std::vector<T> y = normalised<T>({3, 17}, x, 1e-5);
    bool second_row_shows = true;
    for (int c = 0; c < 17; ++c) {
      second_row_shows &= std::isnan(y[size_t(17 + c)]);
      CHECK(std::isfinite(y[size_t(c)]));
      CHECK(std::isfinite(y[size_t(34 + c)]));
    }
    CHECK(second_row_shows);
  }
}

TEST_CASE("layer norm: gradient check") {
  for (int C : {1, 2, 3, 17, 33})
    for (double epsilon : {1e-5, 0.0, 0.5}) {
      if (C == 1 && epsilon == 0) continue;
      Input<double> x("x", {2, 2, C}, uint32_t(C));
      if (C == 2)  // far from equal, where y is steep
        for (size_t i = 0; i < x.value.size(); i += 2) x.value[i] = x.value[i + 1] + 1;
      check_operation(
          [&](Tape<double>& tape) { return layer_norm(tape, copied(tape, x.tensor()), epsilon); },
          {&x});
      check_operation([&](Tape<double>& tape) { return layer_norm(tape, x.tensor(), epsilon); },
                      {&x});

      Workers workers(2);
      Tape<float> tape(workers);
      tape.reset(true);
      Input<float> xf("x", x.shape, x.value);
      const Numbers weights = random_numbers(x.value.size(), 99);  // check_operation's
      tape.backward(weighted_sum(tape, layer_norm(tape, xf.tensor(), epsilon), weights));
      // Three terms cancel, the more the fewer channels there are.
      CHECK(difference("dx", x.shape, xf.gradient_value.data(), x.gradient_value, 40) == "");
    }
}
