// Dropout: which numbers it draws, how it scales, and both operations built on it.
#include <doctest/doctest.h>

#include <cmath>

#include "gradient_check.h"
#include "ops/dropout.h"
#include "reference.h"

using namespace focus;
using namespace focus::test;

namespace {

std::vector<uint8_t> draw(const DropoutMask& mask, uint64_t begin, size_t count) {
  std::vector<uint8_t> keep(count + 1, 77);
  mask.draw(keep.data(), begin, count);
  CHECK(keep[count] == 77);  // nothing beyond the end
  keep.pop_back();
  return keep;
}

}  // namespace

TEST_CASE("the mask is the Philox stream's 16-bit numbers, from any offset, for any count") {
  const Noise noise{.on = true, .seed = 0x123456789abcdef0u, .step = 4000000000u};
  for (double p : {1e-7, 0.01, 0.5, 0.9, 0.9999999}) {
    const DropoutMask mask{noise, 77, p};
    for (uint64_t begin : {uint64_t{0}, uint64_t{1}, uint64_t{7}, uint64_t{8}, uint64_t{1003},
                           (uint64_t{1} << 32) - 5, (uint64_t{1} << 35) - 100,
                           (uint64_t{1} << 35) + 3, (uint64_t{5} << 36) + 1})
      for (size_t count : {0, 1, 2, 7, 8, 9, 63, 64, 65, 500}) {
        const std::vector<uint8_t> keep = draw(mask, begin, count);
        size_t wrong = 0;
        for (size_t j = 0; j < count; ++j)
          wrong += keep[j] != reference_keeps(noise, 77, p, begin + j);
        if (wrong) FAIL_CHECK(wrong, " of ", count, " wrong from ", begin);
      }
  }
}

TEST_CASE("pieces of a mask fit together") {
  const DropoutMask mask{{.on = true, .seed = 3, .step = 1}, 2, 0.3};
  const std::vector<uint8_t> whole = draw(mask, 0, 1000);
  std::vector<uint8_t> joined;
  for (size_t at = 0, n = 1; at < 1000; at += n, n = n % 97 + 5)
    for (uint8_t k : draw(mask, at, std::min(n, 1000 - at))) joined.push_back(k);
  CHECK(joined == whole);
}

TEST_CASE("the share kept is 1 - p; seeds, steps and sites are independent") {
  const size_t n = 200'000;
  for (double p : {0.01, 0.1, 0.5, 0.99}) {
    const DropoutMask base{{.on = true, .seed = 11, .step = 5}, 3, p};
    DropoutMask seed = base, seed_high = base, step = base, site = base;
    seed.noise.seed = 12, seed_high.noise.seed += uint64_t{1} << 32, step.noise.step = 6,
    site.site = 4;
    const std::vector<uint8_t> keep = draw(base, 0, n);
    double kept = 0;
    for (uint8_t k : keep) kept += k;
    const double deviation = std::sqrt(double(n) * p * (1 - p));
    CHECK(std::abs(kept - double(n) * (1 - p)) < 5 * deviation);
    CHECK(base.scale() == doctest::Approx(1 / (1 - p)).epsilon(1e-12));
    for (const DropoutMask& other : {seed, seed_high, step, site}) {
      double both = 0;
      const std::vector<uint8_t> theirs = draw(other, 0, n);
      for (size_t j = 0; j < n; ++j) both += keep[j] && theirs[j];
      const double share = (1 - p) * (1 - p);
      CHECK(std::abs(both - double(n) * share) < 5 * std::sqrt(double(n) * share * (1 - share)));
    }
    // Neighbours are independent too: a counter that stood still would show here.
    double pairs = 0;
    for (size_t j = 0; j + 1 < n; ++j) pairs += keep[j] && keep[j + 1];
    const double share = (1 - p) * (1 - p);
    CHECK(std::abs(pairs - double(n) * share) < 10 * std::sqrt(double(n) * share * (1 - share)));
  }
}

TEST_CASE_TEMPLATE("dropout and add_dropout: masks in order of site, 1 / (1 - p) for the kept", T,
                   float, double) {
  const int n = 4096 + 37;
  const double p = 0.25, scale = 1 / (1 - p);
  const Noise noise{.on = true, .seed = 8, .step = 2};
  for (int threads : {1, 2, 3}) {
    Input<T> x("x", {n}, 1), residual("residual", {n}, 2);
    Workers workers(threads);
    Tape<T> tape(workers);
    tape.reset(true, noise);
    const Tensor<T> first = dropout(tape, x.tensor(), p);
    const Tensor<T> second = add_dropout(tape, residual.tensor(), first, p);
    CHECK(tape.noise().next_site == 2);
    Numbers y1, y2, dx, dr;
    const Numbers dy = random_numbers(size_t(n), 3);
    for (size_t i = 0; i < size_t(n); ++i) {
      const double keep1 = reference_keeps(noise, 0, p, i) ? scale : 0;
      const double keep2 = reference_keeps(noise, 1, p, i) ? scale : 0;
      y1.push_back(keep1 * double(x.value[i]));
      y2.push_back(double(residual.value[i]) + keep2 * y1.back());
      dx.push_back(keep1 * keep2 * dy[i]);
      dr.push_back(dy[i]);
    }
    CHECK(difference("dropout", first, y1, 2) == "");
    CHECK(difference("add_dropout", second, y2, 2) == "");
    tape.backward(weighted_sum(tape, second, dy));
    CHECK(difference("dx", {n}, x.gradient_value.data(), dx, 2) == "");
    CHECK(difference("d_residual", {n}, residual.gradient_value.data(), dr, 1) == "");
  }
}

TEST_CASE("the expectation of a dropped-out number is the number") {
  Workers workers;
  Tape<double> tape(workers);
  Input<double> x("x", {3}, std::vector<double>{1, -2, 0.5});
  Numbers sum(3);
  const int draws = 20'000;
  for (uint32_t step = 0; step < draws; ++step) {
    tape.reset(false, {.on = true, .seed = 1, .step = step});
    const Tensor<double> y = dropout(tape, x.tensor(), 0.4);
    for (size_t i = 0; i < 3; ++i) sum[i] += y.data[i] / draws;
  }
  // The standard deviation of y / x is √(p / (1 - p)) = 0.82.
  for (size_t i = 0; i < 3; ++i)
    CHECK(std::abs(sum[i] / x.value[i] - 1) < 5 * 0.82 / std::sqrt(draws));
}

TEST_CASE("evaluation, or p = 0: nothing is dropped, scaled or drawn") {
  Workers workers;
  Tape<double> tape(workers);
  Input<double> x("x", {5, 3}, 1), residual("residual", {5, 3}, 2);
  Numbers sums;
  for (size_t i = 0; i < 15; ++i) sums.push_back(x.value[i] + residual.value[i]);
  for (bool on : {false, true}) {
    tape.reset(true, {.on = on, .seed = 1});
    const double p = on ? 0 : 0.5;
    CHECK(dropout(tape, x.tensor(), p).data == x.value.data());
    CHECK(difference("sum", add_dropout(tape, residual.tensor(), x.tensor(), p), sums, 0) == "");
    CHECK(tape.noise().next_site == 0);
  }
  Input<double> other("other", {5, 4}, 1);
  CHECK_THROWS_WITH_AS(add_dropout(tape, residual.tensor(), other.tensor(), 0),
                       "add_dropout: x has shape [5, 4], expected [5, 3]", InputError);
}

TEST_CASE("gradient checks, with dropout on and off") {
  for (bool on : {true, false}) {
    Input<double> x("x", {2, 31}, 1), residual("residual", {2, 31}, 2);
    GradientCheck settings;
    settings.noise = {.on = on, .seed = 4, .step = 7};
    for (bool x_copied : {false, true})
      for (bool residual_copied : {false, true})
        check_operation(
            [&](Tape<double>& tape) {
              const Tensor<double> r = residual.tensor();
              const Tensor<double> a = residual_copied ? copied(tape, r) : r;
              const Tensor<double> b = x_copied ? copied(tape, x.tensor()) : x.tensor();
              return add_dropout(tape, a, dropout(tape, b, 0.3), 0.2);
            },
            {&x, &residual}, settings);
    // Both inputs the same tensor: the gradients add up.
    check_operation(
        [&](Tape<double>& tape) { return add_dropout(tape, x.tensor(), x.tensor(), 0.3); }, {&x},
        settings);
    check_operation(
        [&](Tape<double>& tape) {
          const Tensor<double> y = copied(tape, x.tensor());
          return add_dropout(tape, y, y, 0.3);
        },
        {&x}, settings);
  }
}
