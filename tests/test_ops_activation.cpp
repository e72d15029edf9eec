// ReLU, GELU and Mish: values and slopes of many elements. Known values and large arguments are in
// stage_07_activations.cpp.
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
