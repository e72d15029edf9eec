// The tape: what it refuses, and recording off. Order, sums and the memory of gradients are in
// stage_02_autograd.cpp.
#include <doctest/doctest.h>

#include "gradient_check.h"
#include "tensor/tape.h"

using namespace focus;
using namespace focus::test;

namespace {

Tensor<double> add(Tape<double>& tape, const Tensor<double>& a, const Tensor<double>& b) {
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

struct Fixture {
  Workers workers;
  Tape<double> tape{workers};
  Input<double> x{"x", {3}, std::vector<double>{1, -2, 4}};
  std::vector<double> weights{2, 3, 5};
  Fixture() { tape.reset(true); }
};

using Gradients = std::vector<double>;

}  // namespace

TEST_CASE_FIXTURE(Fixture, "adding a tensor to itself counts it twice") {
  const Tensor<double> t = x.tensor();
  tape.backward(weighted_sum(tape, add(tape, t, t), weights));
  CHECK(x.gradient_value == Gradients{4, 6, 10});
}

TEST_CASE_FIXTURE(Fixture, "a tape plays once: a second backward is an error and adds nothing") {
  const Tensor<double> loss = weighted_sum(tape, x.tensor(), weights);
  tape.backward(loss);
  CHECK_THROWS_WITH_AS(tape.backward(loss),
                       "backward: nothing is recorded; a tape plays once for each forward",
                       InputError);
  CHECK(x.gradient_value == Gradients{2, 3, 5});
}

TEST_CASE_FIXTURE(Fixture, "recording off: the same numbers, nothing remembered") {
  tape.reset(false);
  const Tensor<double> y = add(tape, x.tensor(), x.tensor());
  const Tensor<double> loss = weighted_sum(tape, y, weights);
  CHECK(loss.data[0] == 32);
  CHECK(y.gradient == nullptr);
  CHECK(tape.gradient(y) == nullptr);
  CHECK_THROWS_WITH_AS(tape.backward(loss), "backward: the tape was not recording", InputError);
  CHECK(x.gradient_value == Gradients{0, 0, 0});
}

TEST_CASE_FIXTURE(Fixture, "backward wants a loss with one element") {
  const Tensor<double> y = add(tape, x.tensor(), x.tensor());
  CHECK_THROWS_WITH_AS(tape.backward(y), "backward: the loss has shape [3], not [1]", InputError);
}

TEST_CASE_FIXTURE(Fixture, "an input without gradient is told so") {
  std::vector<double> numbers{1, 2};
  CHECK(tape.gradient(Tensor<double>{{2}, numbers.data(), nullptr}) == nullptr);
}

TEST_CASE_FIXTURE(Fixture, "reset takes the noise, and sites count from its beginning") {
  tape.reset(true, {.on = true, .seed = 5, .step = 9});
  CHECK(tape.noise().on);
  CHECK(tape.noise().next_site++ == 0);
  CHECK(tape.noise().next_site == 1);
  tape.reset(false);
  CHECK_FALSE(tape.noise().on);
  CHECK(tape.noise().next_site == 0);
}
