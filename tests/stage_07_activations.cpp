// Stage 07: GELU and Mish, their derivatives, and the models that use them.
#include <doctest/doctest.h>

#include <cmath>
#include <span>

#include "error.h"
#include "golden_run.h"
#include "gradient_check.h"
#include "ops/activation.h"

using namespace focus;
using namespace focus::test;

namespace {

struct Point {
  double x, value, slope;
};

// Worked out in double from the definitions, with erfc and log1p instead of what src uses.
constexpr Point gelu_points[] = {{0, 0, 0.5},
                                 {1, 0.84134474606854293, 1.0833154705876864},
                                 {-1, -0.15865525393145707, -0.083315470587686291},
                                 {2, 1.9544997361036416, 1.0852318010781969},
                                 {-3, -0.0040496940948902836, -0.011945647204183927}};
constexpr Point mish_points[] = {{0, 0, 0.6},
                                 {1, 0.86509838826731033, 1.0490362200997922},
                                 {-1, -0.30340146137410895, 0.059216755877394948},
                                 {2, 1.9439589595339946, 1.0693179342794889},
                                 {-3, -0.14564746127562455, -0.093393114532320836}};

template <class T>
Point at(Activation activation, double x) {
  Workers workers;
  Tape<T> tape(workers);
  tape.reset(true);
  Input<T> input("x", {1}, std::vector<double>{x});
  const Tensor<T> y = activate(tape, input.tensor(), activation);
  tape.backward(y);
  return {x, double(y.data[0]), double(input.gradient_value[0])};
}

template <class T>
void check_points(Activation activation, std::span<const Point> points, bool slopes) {
  const double limit = 8 * double(std::numeric_limits<T>::epsilon());
  for (const Point& wanted : points) {
    const Point got = at<T>(activation, wanted.x);
    const double g = slopes ? got.slope : got.value, w = slopes ? wanted.slope : wanted.value;
    CHECK_MESSAGE(std::abs(g - w) <= limit,
                  str(name_of(activation), slopes ? "'(" : "(", wanted.x, "): ", got_wanted(g, w)));
  }
}

}  // namespace

TEST_CASE_TEMPLATE("GELU: values by the definition with erf", T, float, double) {
  check_points<T>(Activation::gelu, gelu_points, false);
}

TEST_CASE_TEMPLATE("GELU: slopes", T, float, double) {
  check_points<T>(Activation::gelu, gelu_points, true);
}

TEST_CASE_TEMPLATE("Mish: values", T, float, double) {
  check_points<T>(Activation::mish, mish_points, false);
}

TEST_CASE_TEMPLATE("Mish: slopes", T, float, double) {
  check_points<T>(Activation::mish, mish_points, true);
}

TEST_CASE_TEMPLATE("far to the right the identity, far to the left 0, never NaN", T, float,
                   double) {
  for (Activation a : {Activation::relu, Activation::gelu, Activation::mish})
    for (double x : {25.0, 60.0, 95.0, 800.0, 1e6, 1e30}) {
      const Point right = at<T>(a, x), left = at<T>(a, -x);
      CHECK_MESSAGE((right.value == double(T(x)) && right.slope == 1), std::string(name_of(a)),
                    " at ", x, ": got ", right.value, " and the slope ", right.slope);
      CHECK_MESSAGE((std::abs(left.value) < 1e-9 && std::abs(left.slope) < 1e-9),
                    std::string(name_of(a)), " at ", -x, ": got ", left.value, " and the slope ",
                    left.slope);
    }
}

TEST_CASE("Mish keeps its digits where the exponential is small beside 1") {
  for (double x : {-8.0, -15.0, -18.0}) {
    // x tanh(ln(1 + eˣ)), with ln(1 + e) by log1p, which does not lose e.
    const double wanted = x * std::tanh(std::log1p(std::exp(x)));
    const Point got = at<float>(Activation::mish, x);
    CHECK_MESSAGE(std::abs(got.value / wanted - 1) <= 1e-6, "mish(", x,
                  "): ", got_wanted(got.value, wanted));
  }
}

TEST_CASE("slopes against differences of the values") {
  for (Activation a : {Activation::relu, Activation::gelu, Activation::mish}) {
    INFO(std::string(name_of(a)));
    Input<double> x("x", {3, 31}, 2);
    for (double& value : x.value) value *= 6;
    check_operation([&](Tape<double>& tape) { return activate(tape, copied(tape, x.tensor()), a); },
                    {&x});
    check_operation([&](Tape<double>& tape) { return activate(tape, x.tensor(), a); }, {&x});
  }
}

TEST_CASE("the authors' model: GELU with full, block and top-k attention, Mish with top-k") {
  for (const char* name :
       {"full_gelu_4heads_d32", "block_short_last_global3", "topk_gelu_2heads", "topk_k9_mish"})
    CHECK(wrong_golden(name) == "");
}
