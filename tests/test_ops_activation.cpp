// ReLU, GELU and Mish: exact values, slopes, extremes and gradients.
#include <doctest/doctest.h>

#include <cmath>

#include "gradient_check.h"
#include "ops/activation.h"

using namespace focus;
using namespace focus::test;

namespace {

constexpr Activation all_activations[] = {Activation::relu, Activation::gelu, Activation::mish};

// Written the other way round than in src: erfc, tanh and log1p.
double reference(Activation a, double x) {
  if (a == Activation::relu) return std::max(x, 0.0);
  if (a == Activation::gelu) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
  return x * std::tanh(x > 700 ? x : std::log1p(std::exp(x)));
}

struct ValueAndSlope {
  double value, slope;
};

template <class T>
ValueAndSlope at(Activation a, T x) {
  Workers workers;
  Tape<T> tape(workers);
  tape.reset(true);
  Input<T> input("x", {1}, std::vector<double>{double(x)});
  const Tensor<T> y = activate(tape, input.tensor(), a);
  tape.backward(y);
  return {double(y.data[0]), double(input.gradient_value[0])};
}

}  // namespace

TEST_CASE("known values of GELU (with erf, not tanh) and Mish") {
  const auto value = [](Activation a, double x) { return at<double>(a, x).value; };
  const double close = 4e-16;
  CHECK(std::abs(value(Activation::gelu, 1) - 0.8413447460685429) < close);  // Φ(1)
  CHECK(std::abs(value(Activation::gelu, -1) - -0.15865525393145707) < close);
  CHECK(std::abs(value(Activation::gelu, 2) - 1.9544997361036416) < close);
  CHECK(std::abs(value(Activation::gelu, -3) - -0.004049694094890287) < close);
  CHECK(std::abs(value(Activation::mish, 1) - 0.8650983882673103) < close);
  CHECK(std::abs(value(Activation::mish, -1) - -0.30340146137410895) < close);
  CHECK(std::abs(value(Activation::mish, 2) - 1.9439589595339946) < close);
  CHECK(std::abs(value(Activation::mish, -10) - -0.00045398899185674697) < close);
  CHECK(value(Activation::gelu, 0) == 0);
  CHECK(value(Activation::mish, 0) == 0);
  CHECK(std::abs(at<double>(Activation::gelu, 0).slope - 0.5) < close);
  CHECK(std::abs(at<double>(Activation::mish, 0).slope - 0.6) < close);  // tanh(ln 2)
}

TEST_CASE_TEMPLATE("ReLU at and around 0", T, float, double) {
  const T tiny = std::numeric_limits<T>::denorm_min();
  for (T x : {T(0), T(-0.0), -tiny, T(-2)}) {
    CHECK(at<T>(Activation::relu, x).value == 0);
    CHECK(at<T>(Activation::relu, x).slope == 0);
  }
  CHECK(at<T>(Activation::relu, tiny).value == double(tiny));
  CHECK(at<T>(Activation::relu, tiny).slope == 1);
  CHECK(at<T>(Activation::relu, T(3)).slope == 1);
}

TEST_CASE_TEMPLATE("large arguments: the identity on the right, 0 on the left, no overflow", T,
                   float, double) {
  for (Activation a : all_activations)
    for (double x : {25.0, 90.0, 200.0, 800.0, 1e6, 1e30}) {
      CHECK(at<T>(a, T(x)).value == double(T(x)));
      CHECK(at<T>(a, T(x)).slope == 1);
      // Mish falls off like x eˣ, the slowest: 3e-10 at -25.
      CHECK(std::abs(at<T>(a, T(-x)).value) < 1e-9);
      CHECK(std::abs(at<T>(a, T(-x)).slope) < 1e-9);
    }
}

TEST_CASE_TEMPLATE("NaN stays NaN", T, float, double) {
  for (Activation a : all_activations) CHECK(std::isnan(at<T>(a, T(NAN)).value));
}

TEST_CASE_TEMPLATE("values against the reference, more elements than a piece of work", T, float,
                   double) {
  const int n = 4096 * 2 + 33;
  for (Activation a : all_activations)
    for (int threads : {1, 3}) {
      Workers workers(threads);
      Tape<T> tape(workers);
      tape.reset(false);
      std::vector<double> x = random_numbers(size_t(n), 1), wanted;
      for (double& value : x) value = double(T(value * 12));
      for (double value : x) wanted.push_back(reference(a, value));
      Input<T> input("x", {n}, x);
      // Scaled by the largest value, 12: measured 0.7 units.
      CHECK(difference(name_of(a), activate(tape, input.tensor(), a), wanted, 1) == "");
    }
}

TEST_CASE("gradients") {
  for (Activation a : all_activations) {
    Input<double> x("x", {3, 31}, 2);
    for (double& value : x.value) value *= 6;
    check_operation([&](Tape<double>& tape) { return activate(tape, copied(tape, x.tensor()), a); },
                    {&x});
    check_operation([&](Tape<double>& tape) { return activate(tape, x.tensor(), a); }, {&x});
    // In float the same slopes: each is of size 1 and costs a few roundings.
    Workers workers;
    Tape<float> tape(workers);
    tape.reset(true);
    Input<float> xf("x", {3, 31}, x.value);
    const std::vector<double> weights = random_numbers(93, 99);  // check_operation's
    tape.backward(weighted_sum(tape, activate(tape, xf.tensor(), a), weights));
    CHECK(difference("dx", {3, 31}, xf.gradient_value.data(), x.gradient_value, 8) == "");
  }
}

TEST_CASE("names") {
  for (Activation a : all_activations) CHECK(activation_of(name_of(a)) == a);
  CHECK_THROWS_WITH_AS(activation_of("tanh"),
                       "activation 'tanh' is unknown: use relu, gelu or mish", InputError);
}
