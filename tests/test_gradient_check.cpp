// The gradient checker itself: it must pass right gradients, name wrong ones, and know kinks.
#include <doctest/doctest.h>

#include <cmath>

#include "gradient_check.h"

using namespace focus;
using namespace focus::test;

namespace {

// f = Σ exp(x_i) · i, whose gradient is plain; `mistake` is added to one element of it.
GradientReport check_exponentials(double mistake) {
  Input<double> x("x", {2, 3}, 1);
  for (size_t i = 0; i < 6; ++i) x.gradient_value[i] = double(i) * std::exp(x.value[i]);
  x.gradient_value[5] += mistake;
  const std::vector<double> before = x.value;
  const GradientReport report = check_gradients(
      [&] {
        double f = 0;
        for (size_t i = 0; i < 6; ++i) f += double(i) * std::exp(x.value[i]);
        return f;
      },
      {&x});
  CHECK(x.value == before);  // put back
  return report;
}

// One number at `at`, the function f, a claimed slope.
template <class F>
GradientReport check_one(double at, double claimed, const F& f, GradientCheck settings = {}) {
  Input<double> x("x", {1}, std::vector<double>{at});
  x.gradient_value[0] = claimed;
  return check_gradients([&] { return f(x.value[0]); }, {&x}, settings);
}

double relu(double x) {
  return x > 0 ? x : 0;
}

}  // namespace

TEST_CASE("a right gradient passes with room, a wrong one is named with its coordinates") {
  const GradientReport right = check_exponentials(0);
  CHECK_MESSAGE(right.ok, right.text);
  CHECK(right.elements == 6);
  CHECK(right.worst < 0.05);  // measured 0.0007 of the limit

  const GradientReport wrong = check_exponentials(1e-5);
  CHECK_FALSE(wrong.ok);
  CHECK(wrong.kinks == 0);  // a wrong gradient must not pass for a kink
  CHECK(wrong.text.find("x[1, 2]: got ") != std::string::npos);
  CHECK_FALSE(check_exponentials(std::nan("")).ok);
}

TEST_CASE("a NaN value is an error, not a kink") {
  const GradientReport report = check_one(1, 1, [](double) { return std::nan(""); });
  CHECK_FALSE(report.ok);
  CHECK(report.kinks == 0);
}

TEST_CASE("kinks anywhere within the step are skipped and counted") {
  const double h = GradientCheck{}.step;
  GradientCheck any_number_skipped;
  any_number_skipped.most_skipped = 1;
  for (double share : {0.0, 0.1, 0.25, 1 / 3.0, 0.4, 0.5, 0.6, 0.9, -0.2, -1 / 3.0, -0.7}) {
    const double x = share * h;
    const GradientReport report = check_one(x, x > 0 ? 1 : 0, relu, any_number_skipped);
    CHECK_MESSAGE(report.kinks == 1, "at ", share, " steps: ", report.text);
    // By default skipping everything is no pass.
    CHECK_FALSE(check_one(x, x > 0 ? 1 : 0, relu).ok);
  }
  CHECK(check_one(2 * h, 1, relu).ok);
  CHECK(check_one(-2 * h, 0, relu).ok);
  CHECK_FALSE(check_one(2 * h, 0, relu, any_number_skipped).ok);
}

TEST_CASE("a smooth but strongly bent function is no kink") {
  const auto f = [](double x) { return std::tanh(20 * x); };
  const double slope = 20 / std::pow(std::cosh(20 * 0.03), 2);
  CHECK(check_one(0.03, slope, f, {.tolerance = 1e-6}).ok);
  const GradientReport wrong = check_one(0.03, slope * 1.001, f, {.tolerance = 1e-6});
  CHECK_FALSE(wrong.ok);
  CHECK(wrong.kinks == 0);
}

TEST_CASE(
    "a discrete choice that moves is skipped when the function tells, a kink when it doesn't") {
  // The largest of two numbers times 3: the choice changes between x - h and x + h.
  int chosen = 0;
  const auto f = [&](double x) {
    chosen = x > 0 ? 1 : 0;
    return chosen ? 3 * x : -x;
  };
  GradientCheck settings;
  settings.most_skipped = 1;
  CHECK(check_one(1e-6, 3, f, settings).kinks == 1);
  settings.choice = [&] { return uint64_t(chosen); };
  const GradientReport report = check_one(1e-6, 3, f, settings);
  CHECK(report.moved == 1);
  CHECK(report.kinks == 0);
  CHECK(check_one(1.0, 3, f, settings).moved == 0);
  CHECK_FALSE(check_one(1.0, 2.9, f, settings).ok);
}

TEST_CASE("large arguments take larger steps") {
  // At 1e12 a step of 6e-6 would vanish in the number's own spacing.
  CHECK(check_one(1e12, 1, [](double x) { return x; }).ok);
  CHECK_FALSE(check_one(1e12, 1.1, [](double x) { return x; }).ok);
}
