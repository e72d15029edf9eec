// SGD, what an optimiser keeps, and clipping. Adam against the textbook is in
// stage_12_optimisers.cpp.
#include <doctest/doctest.h>

#include "close.h"
#include "train/optimizer.h"

using namespace focus;
using namespace focus::test;

namespace {

// Two parameters of 5 and 1 numbers with gradients that change from step to step.
template <class T>
struct Fixture {
  std::deque<Parameter<T>> parameters;
  Fixture() {
    parameters.emplace_back("a", Shape{5});
    parameters.emplace_back("b", Shape{1});
    const auto start = random_numbers(6, 1);
    for (size_t i = 0; i < 6; ++i) value(i) = T(start[i]);
  }
  T& value(size_t i) { return i < 5 ? parameters[0].value[i] : parameters[1].value[0]; }
  T& gradient(size_t i) {
    return i < 5 ? parameters[0].gradient_value[i] : parameters[1].gradient_value[0];
  }
  void set_gradients(int step) {
    const auto g = random_numbers(6, uint32_t(10 + step));
    for (size_t i = 0; i < 6; ++i) gradient(i) = T(g[i]);
    gradient(3) = 0;         // Adam must stay at rest here, not divide 0 by 0
    gradient(4) = T(1e-12);  // so small that ε decides
  }
};

}  // namespace

TEST_CASE_TEMPLATE("SGD: w -= lr · factor · g", T, float, double) {
  Fixture<T> f;
  Optimizer<T> sgd(OptimizerKind::sgd, f.parameters);
  std::vector<double> w;
  for (size_t i = 0; i < 6; ++i) w.push_back(double(f.value(i)));
  for (int step = 0; step < 6; ++step) {
    f.set_gradients(step);
    const double lr = 0.3 / (step + 1), factor = step % 2 ? 0.25 : 1;
    for (size_t i = 0; i < 6; ++i) w[i] -= lr * factor * double(f.gradient(i));
    sgd.step(f.parameters, lr, factor);
    CHECK(difference("a", {5}, f.parameters[0].value.data(), {w.begin(), w.begin() + 5}, 3) == "");
    CHECK(difference("b", {1}, f.parameters[1].value.data(), {w[5]}, 3) == "");
  }
  CHECK(sgd.steps_taken() == 6);
  CHECK(sgd.first_moments().empty());
}

TEST_CASE_TEMPLATE("Adam goes on from saved state as if never stopped", T, float, double) {
  Fixture<T> whole, resumed;
  Optimizer<T> first(OptimizerKind::adam, whole.parameters);
  Optimizer<T> before(OptimizerKind::adam, resumed.parameters);
  for (int t = 0; t < 3; ++t) {
    whole.set_gradients(t), resumed.set_gradients(t);
    first.step(whole.parameters, 0.1, 1);
    before.step(resumed.parameters, 0.1, 1);
  }
  Optimizer<T> after(OptimizerKind::adam, resumed.parameters);
  after.first_moments() = before.first_moments();
  after.second_moments() = before.second_moments();
  after.set_steps_taken(before.steps_taken());
  for (int t = 3; t < 6; ++t) {
    whole.set_gradients(t), resumed.set_gradients(t);
    first.step(whole.parameters, 0.1, 1);
    after.step(resumed.parameters, 0.1, 1);
    for (size_t i = 0; i < 6; ++i) CHECK(whole.value(i) == resumed.value(i));
  }
}

TEST_CASE_TEMPLATE("a parameter's own factor on the rate, and one that is not trained", T, float,
                   double) {
  for (OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::adam}) {
    Fixture<T> plain, own, frozen;
    own.parameters[1].rate_factor = 4, frozen.parameters[0].rate_factor = 0;
    Optimizer<T> a(kind, plain.parameters), b(kind, own.parameters), c(kind, frozen.parameters);
    const std::vector<T> start = frozen.parameters[0].value;
    T moved = 0;
    for (int step = 0; step < 4; ++step) {
      for (Fixture<T>* f : {&plain, &own, &frozen}) f->set_gradients(step);
      const T before = plain.value(5);
      a.step(plain.parameters, 0.125, 0.5), b.step(own.parameters, 0.125, 0.5);
      c.step(frozen.parameters, 0.125, 0.5);
      moved += plain.value(5) - before;
      CHECK(own.parameters[0].value == plain.parameters[0].value);
      CHECK(frozen.parameters[0].value == start);
      CHECK(frozen.value(5) == plain.value(5));
    }
    Fixture<T> first;
    const double step = double(own.value(5)) - double(first.value(5));
    CHECK(step == doctest::Approx(4 * double(moved)).epsilon(1e-5));
    if (kind == OptimizerKind::adam) {
      CHECK(c.first_moments()[0] == std::vector<T>(5));
      CHECK(b.first_moments() == a.first_moments());
    }
    CHECK(gradient_norm(frozen.parameters) == std::abs(double(frozen.gradient(5))));
  }
}

TEST_CASE_TEMPLATE("the gradient norm is over all parameters together", T, float, double) {
  std::deque<Parameter<T>> p;
  double total = 0;
  for (int n : {1, 7, 8, 9, 33}) {
    p.emplace_back("w", Shape{n});
    const auto g = as<T>(random_numbers(size_t(n), uint32_t(n)));
    p.back().gradient_value = g;
    p.back().gradient.data = p.back().gradient_value.data();
    for (T x : g) total += double(x) * double(x);
    CHECK(gradient_norm(p) == doctest::Approx(std::sqrt(total)).epsilon(1e-14));
  }
  p[1].gradient_value[3] = T(1e30);  // its square overflows float, not double
  CHECK(gradient_norm(p) == doctest::Approx(double(T(1e30))));
  p[4].gradient_value[32] = T(NAN);
  CHECK(std::isnan(gradient_norm(p)));
}

TEST_CASE("clip_factor: down to the clip, never up, 1e-6 added to the norm, off at 0") {
  CHECK(clip_factor(2, 0.5) == doctest::Approx(0.5 / 2.000001).epsilon(1e-14));
  CHECK(clip_factor(0.4, 0.5) == 1);
  CHECK(clip_factor(0.5, 0.5) == doctest::Approx(0.5 / 0.500001).epsilon(1e-14));
  CHECK(clip_factor(0.5, 0.5) < 1);
  CHECK(clip_factor(0.4999991, 0.5) < 1);  // the 1e-6 again
  CHECK(clip_factor(0.4999989, 0.5) == 1);
  CHECK(clip_factor(0, 0.5) == 1);
  CHECK(clip_factor(1e9, 0) == 1);
  CHECK(clip_factor(1e9, -1) == 1);
}

TEST_CASE("names") {
  for (OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::adam})
    CHECK(optimizer_of(name_of(kind)) == kind);
  CHECK_THROWS_WITH_AS(optimizer_of("lion"), "optimizer 'lion' is unknown: use sgd or adam",
                       InputError);
}
