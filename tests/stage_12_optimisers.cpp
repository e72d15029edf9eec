// Stage 12: Adam, step by step, and how far a decaying rate can go.
#include <doctest/doctest.h>

#include <cmath>

#include "close.h"
#include "model_run.h"
#include "train/optimizer.h"
#include "train/rate_budget.h"

using namespace focus;
using namespace focus::test;

namespace {

// Parameters of the given sizes with numbers of their own.
template <class T>
std::deque<Parameter<T>> parameters_of(std::initializer_list<int> sizes) {
  std::deque<Parameter<T>> parameters;
  for (int n : sizes) {
    parameters.emplace_back(str("w", parameters.size()), Shape{n});
    parameters.back().value = as<T>(random_numbers(size_t(n), uint32_t(n)));
  }
  return parameters;
}

template <class T>
void set_gradients(std::deque<Parameter<T>>& parameters, uint32_t which, double scale = 1) {
  for (Parameter<T>& p : parameters) {
    const std::vector<double> g = random_numbers(p.value.size(), which++);
    for (size_t i = 0; i < g.size(); ++i) p.gradient_value[i] = T(scale * g[i]);
  }
}

template <class T>
std::string wrong(const std::string& what, const std::vector<T>& got,
                  const std::vector<double>& wanted, double units) {
  return difference(what, {int(got.size())}, got.data(), wanted, units);
}

}  // namespace

TEST_CASE_TEMPLATE("Adam: four steps of four weights, worked out with 40 digits", T, float,
                   double) {
  const double gradient[4][4] = {
      {1, -2, 0.5, 0.25}, {0.5, 4, -0.25, 0.25}, {-1, 0.5, 0, 0.25}, {2, -1, 8, -3}};
  const double lr[4] = {0.5, 0.25, 0.125, 0.5}, factor[4] = {1, 0.5, 1, 0.25};
  const std::vector<double> m[4] = {{0.1, -0.2, 0.05, 0.025},
                                    {0.115, 0.02, 0.0325, 0.035},
                                    {0.0035, 0.068, 0.02925, 0.0565},
                                    {0.05315, 0.0362, 0.226325, -0.02415}};
  const std::vector<double> v[4] = {
      {0.001, 0.004, 0.00025, 0.0000625},
      {0.0010615, 0.007996, 0.000265375, 0.0000780625},
      {0.0020604385, 0.008238004, 0.000265109625, 0.0001404844375},
      {0.0023083780615, 0.008292265996, 0.004264844515375, 0.0007028439530625}};
  const std::vector<double> w[4] = {
      {4.9999999500000005e-9, -0.500000002499999987, 1.5000000099999998, -0.2499999800000008},
      {-0.20764937556931996, -0.513157897171052619, 1.38263297041926305, -0.483044877909840296},
      {-0.209596404376088819, -0.532076195812817914, 1.33727043981836301, -0.603414940229012936},
      {-0.311242773568595268, -0.568603198059234186, 1.01883382405154907, -0.519714114087611058}};
  std::deque<Parameter<T>> p;
  p.emplace_back("w", Shape{4});
  p[0].value = as<T>({0.5, -1, 2, 0.25});
  Optimizer<T> adam(OptimizerKind::adam, p);
  for (int t = 0; t < 4; ++t) {
    p[0].gradient_value = std::vector<T>(gradient[t], gradient[t] + 4);
    adam.step(p, lr[t], factor[t]);
    const std::string step = str("step ", t + 1, ", ");
    // In units of ε. In double 1 - 0.999 has lost three digits before anything begins, so w is off
    // by more of them: measured 12 in double, 0.5 in float.
    CHECK(wrong(step + "m", adam.first_moments()[0], m[t], 0.5) == "");
    CHECK(wrong(step + "v", adam.second_moments()[0], v[t], 0.1) == "");
    CHECK(wrong(step + "w", p[0].value, w[t], 40) == "");
  }
}

TEST_CASE_TEMPLATE("Adam: against the formulas, parameters of 1, 33 and 7 numbers, 12 steps", T,
                   float, double) {
  auto p = parameters_of<T>({1, 33, 7});
  Optimizer<T> adam(OptimizerKind::adam, p);
  std::vector<std::vector<double>> w, m, v;
  for (const Parameter<T>& each : p) {
    w.emplace_back(each.value.begin(), each.value.end());
    m.emplace_back(each.value.size()), v.emplace_back(each.value.size());
  }
  for (int t = 1; t <= 12; ++t) {
    set_gradients(p, uint32_t(20 * t));
    const double lr = 0.1 / t, factor = t % 2 ? 1 : 0.125;
    for (size_t i = 0; i < p.size(); ++i)
      for (size_t j = 0; j < w[i].size(); ++j) {
        const double g = factor * double(p[i].gradient_value[j]);
        m[i][j] = 0.9 * m[i][j] + 0.1 * g;
        v[i][j] = 0.999 * v[i][j] + 0.001 * g * g;
        w[i][j] -= lr * (m[i][j] / (1 - std::pow(0.9, t))) /
                   (std::sqrt(v[i][j] / (1 - std::pow(0.999, t))) + 1e-8);
      }
    adam.step(p, lr, factor);
  }
  for (size_t i = 0; i < p.size(); ++i)
    CHECK(wrong(p[i].name, p[i].value, w[i], 8) == "");  // measured 1.1
  CHECK(adam.steps_taken() == 12);
}

TEST_CASE_TEMPLATE("Adam: the first step is lr, against the gradient's sign", T, float, double) {
  std::deque<Parameter<T>> p;
  p.emplace_back("w", Shape{5});
  p[0].gradient_value = as<T>({1e3, -1e-3, 1, 0, 1e-8});
  Optimizer<T> adam(OptimizerKind::adam, p);
  adam.step(p, 0.125, 1);
  INFO("a gradient as small as ε gives half a step, no gradient none");
  const std::vector<double> wanted = {-0.125 / (1 + 1e-11), 0.125 / (1 + 1e-5), -0.125 / (1 + 1e-8),
                                      0, -0.0625};
  CHECK(wrong("w", p[0].value, wanted, 1) == "");
}

TEST_CASE_TEMPLATE("Adam: the size of all gradients does not matter", T, float, double) {
  auto small = parameters_of<T>({9}), large = parameters_of<T>({9});
  Optimizer<T> a(OptimizerKind::adam, small), b(OptimizerKind::adam, large);
  for (uint32_t t = 0; t < 6; ++t) {
    set_gradients(small, t), set_gradients(large, t, 1024);
    a.step(small, 0.1, 1), b.step(large, 0.1, 1);
  }
  const std::vector<double> wanted(small[0].value.begin(), small[0].value.end());
  // Only ε is felt: 1e-8 beside the smallest gradients.
  double worst = 0;
  for (size_t i = 0; i < 9; ++i) {
    const double off = std::abs(double(large[0].value[i]) - wanted[i]);
    worst = off <= worst ? worst : off;  // NaN stays
  }
  CHECK_MESSAGE(worst <= 1e-5, "off by ", worst);
}

TEST_CASE("Adam trains a model, with full and with top-k attention") {
  for (Pattern pattern : {Pattern::full, Pattern::topk}) {
    Training<double> training(small_model(pattern), OptimizerKind::adam, 1);
    const double before = training.step(0.01);
    double after = before;
    for (int step = 0; step < 40; ++step) after = training.step(0.01);
    CHECK_MESSAGE(after <= before / 4, str(name_of(pattern)), ": the loss went from ", before,
                  " to ", after);
  }
}

TEST_CASE("the sum of decaying rates, term by term") {
  for (double decay : {0.5, 0.9, 0.99, 0.9995, 0.99999, 1.0, 1.01})
    for (int epochs : {0, 1, 2, 17, 400}) {
      double wanted = 0;
      for (int e = 0; e < epochs; ++e) wanted += decayed_rate(0.3, decay, e);
      const double got = sum_of_rates(0.3, decay, epochs);
      CHECK_MESSAGE(std::abs(got - wanted) <= 1e-9 * wanted, "decay ", decay, ", ", epochs,
                    " epochs: ", got_wanted(got, wanted));
    }
}

TEST_CASE("the sum of decaying rates has a limit below a decay of 1, and none at 1") {
  CHECK(sum_of_rates(0.2, 0.95, HUGE_VAL) == doctest::Approx(4));
  CHECK(sum_of_rates(0.2, 0.9, HUGE_VAL) == doctest::Approx(2));
  CHECK(sum_of_rates(0.2, 1, HUGE_VAL) == HUGE_VAL);
}
