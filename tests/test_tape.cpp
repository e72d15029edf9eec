// The tape: order, sums, branches, parameters, recording off, and gradients that share memory.
#include <doctest/doctest.h>

#include <set>
#include <string>

#include "gradient_check.h"
#include "tensor/tape.h"

using namespace focus;
using namespace focus::test;

namespace {

// y = factor · x, elementwise; its backward writes its name into a log.
struct Scale {
  double factor;
  char name;
  std::string* log;

  Tensor<double> operator()(Tape<double>& tape, const Tensor<double>& x) const {
    const Tensor<double> y = tape.make(x.shape);
    for (size_t i = 0; i < x.size(); ++i) y.data[i] = factor * x.data[i];
    tape.record(y, [=, self = *this, &tape] {
      self.log->push_back(self.name);
      double* dx = tape.gradient(x);
      const double* dy = tape.gradient(y);
      for (size_t i = 0; i < x.size(); ++i) dx[i] += self.factor * dy[i];
    });
    return y;
  }
};

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
  std::string log;
  Fixture() { tape.reset(true); }
};

using Gradients = std::vector<double>;

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a tensor used twice receives the sum, backwards run last first") {
  const Scale a{10, 'a', &log}, b{7, 'b', &log}, c{100, 'c', &log};
  const Tensor<double> once = a(tape, x.tensor());
  const Tensor<double> left = b(tape, once), right = c(tape, once);
  const Tensor<double> both = add(tape, left, right);
  const Tensor<double> loss = weighted_sum(tape, both, weights);
  CHECK(loss.data[0] == 10 * 107 * (2 * 1 - 3 * 2 + 5 * 4));
  tape.backward(loss);
  CHECK(log == "cba");
  CHECK(x.gradient_value == Gradients{2140, 3210, 5350});
}

TEST_CASE_FIXTURE(Fixture, "adding a tensor to itself counts it twice") {
  const Tensor<double> t = x.tensor();
  tape.backward(weighted_sum(tape, add(tape, t, t), weights));
  CHECK(x.gradient_value == Gradients{4, 6, 10});
}

TEST_CASE_FIXTURE(Fixture, "branches that do not reach the loss are skipped") {
  const Scale used{2, 'u', &log}, unused{3, 'n', &log};
  const Tensor<double> y = used(tape, x.tensor());
  unused(tape, unused(tape, y));
  tape.backward(weighted_sum(tape, y, weights));
  CHECK(log == "u");
  CHECK(x.gradient_value == Gradients{4, 6, 10});
}

TEST_CASE_FIXTURE(Fixture, "a parameter's gradient adds up over passes until it is zeroed") {
  for (int pass = 1; pass <= 3; ++pass) {
    tape.reset(true);
    tape.backward(weighted_sum(tape, x.tensor(), weights));
    CHECK(x.gradient_value == Gradients{2.0 * pass, 3.0 * pass, 5.0 * pass});
  }
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
  const Scale a{10, 'a', &log};
  tape.reset(false);
  const Tensor<double> y = a(tape, x.tensor());
  const Tensor<double> loss = weighted_sum(tape, y, weights);
  CHECK(loss.data[0] == 160);
  CHECK(y.gradient == nullptr);
  CHECK(tape.gradient(y) == nullptr);
  CHECK_THROWS_WITH_AS(tape.backward(loss), "backward: the tape was not recording", InputError);
  CHECK(log.empty());
}

TEST_CASE_FIXTURE(Fixture, "backward wants a loss with one element") {
  const Scale a{10, 'a', &log};
  const Tensor<double> y = a(tape, x.tensor());
  CHECK_THROWS_WITH_AS(tape.backward(y), "backward: the loss has shape [3], not [1]", InputError);
}

TEST_CASE_FIXTURE(Fixture, "an input without gradient is told so") {
  std::vector<double> numbers{1, 2};
  CHECK(tape.gradient(Tensor<double>{{2}, numbers.data(), nullptr}) == nullptr);
}

TEST_CASE_FIXTURE(Fixture, "gradient memory is used again, zeroed, and never by two at once") {
  // A long chain: each link's gradient lives for two links, so two buffers serve them all.
  const int links = 50;
  std::set<const double*> buffers;
  Tensor<double> y = x.tensor();
  for (int i = 0; i < links; ++i) {
    const Tensor<double> from = y, to = tape.make(y.shape);
    for (size_t j = 0; j < 3; ++j) to.data[j] = from.data[j] + 1;
    tape.record(to, [=, this, &buffers] {
      double* dy = tape.gradient(to);
      double* dx = tape.gradient(from);
      CHECK(dx != dy);
      if (from.data != x.value.data()) {
        buffers.insert(dx);
        for (size_t j = 0; j < 3; ++j) CHECK(dx[j] == 0);  // whatever the last user left
      }
      for (size_t j = 0; j < 3; ++j) dx[j] += dy[j];
      // Used up: poison it for whoever forgets to zero it.
      for (size_t j = 0; j < 3; ++j) dy[j] = std::nan("");
    });
    y = to;
  }
  tape.backward(weighted_sum(tape, y, weights));
  CHECK(x.gradient_value == Gradients{2, 3, 5});
  CHECK(buffers.size() <= 2);
}

TEST_CASE_FIXTURE(Fixture, "gradients of different sizes never share memory") {
  Input<double> big("big", {5}, std::vector<double>{1, 2, 3, 4, 5});
  const Scale s{2, 's', &log};
  const std::vector<double> big_weights{1, 1, 2, 2, 7};
  // Interleaved, so that buffers of both sizes become free in turns.
  const Tensor<double> a = s(tape, s(tape, x.tensor())), b = s(tape, s(tape, big.tensor()));
  const Tensor<double> loss = add(tape, weighted_sum(tape, s(tape, a), weights),
                                  weighted_sum(tape, s(tape, b), big_weights));
  tape.backward(loss);
  CHECK(x.gradient_value == Gradients{16, 24, 40});
  CHECK(big.gradient_value == Gradients{8, 8, 16, 16, 56});
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
