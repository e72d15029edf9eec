// exponential(), largest_of() and the softmax of a row; its backward is in stage_01_softmax.cpp.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "close.h"
#include "tensor/softmax.h"

using namespace focus;
using namespace focus::test;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

// The distance to eˣ in units of float's last place there.
double units_off(float x) {
  const double wanted = std::exp(double(x));
  const double unit = std::exp2(std::floor(std::log2(wanted)) - 23);
  return std::abs(double(exponential(x)) - wanted) / unit;
}

}  // namespace

TEST_CASE("exponential: within 3 units of the last place over the whole range") {
  double worst = 0;
  float worst_at = 0;
  const auto look = [&](float x) {
    const double off = units_off(x);
    if (!(off <= worst)) worst = off, worst_at = x;
  };
  for (int i = 0; i <= 2'000'000; ++i) look(float(-87.29 + i * (175.98 / 2e6)));
  // Around 0, where eˣ - 1 is small, and around the halves of ln 2, where the reduction switches.
  for (int i = -100'000; i <= 100'000; ++i) look(float(i) * 1e-6f);
  for (int n = -125; n <= 127; ++n)
    for (int i = -50; i <= 50; ++i) look(float((n + 0.5) * 0.6931471805599453) + float(i) * 1e-6f);
  // The polynomial's dropped term alone is 2 units just below n · ln 2 + ln 2 / 2. Measured 2.72.
  CHECK_MESSAGE(worst <= 3, worst, " units at ", worst_at);
}

TEST_CASE("exponential: the ends of the range and what is no number") {
  CHECK(exponential(0.f) == 1.f);
  CHECK(exponential(-0.f) == 1.f);
  CHECK(exponential(-inf) == 0.f);
  CHECK(exponential(inf) == inf);
  CHECK(std::isnan(exponential(std::nanf(""))));
  CHECK(std::isnan(exponential(-std::nanf(""))));
  CHECK(exponential(1e30f) == inf);
  CHECK(exponential(-1e30f) == 0.f);
  CHECK(exponential(88.75f) == inf);  // e^88.75 > 3.4e38
  CHECK(exponential(-87.4f) == 0.f);  // below the smallest normal number: no denormals
  CHECK(exponential(-103.f) == 0.f);
  CHECK(exponential(std::numeric_limits<float>::denorm_min()) == 1.f);
  // Never a negative or a denormal number in between, and never decreasing by more than rounding.
  float before = 0;
  for (float x = -87.6f; x < -87.f; x = std::nextafter(x, 0.f)) {
    const float e = exponential(x);
    if (!(e == 0 || std::isnormal(e))) FAIL_CHECK("denormal at ", x);
    if (!(e >= before * (1 - 4e-7f))) FAIL_CHECK("falls at ", x);
    before = e;
  }
  CHECK(exponential(1.0) == std::exp(1.0));  // in double: the library's
}

TEST_CASE_TEMPLATE("largest_of finds the maximum anywhere and passes NaN over", T, float, double) {
  const T lowest = -std::numeric_limits<T>::infinity();
  int wrong = 0;
  for (int n = 1; n <= 70; ++n) {
    const auto x = as<T>(random_numbers(size_t(n), 1));
    for (int at = 0; at < n; ++at) {
      auto y = x;
      y[size_t(at)] = T(5);
      wrong += largest_of(y.data(), n) != T(5);
      for (int nan = 0; nan < n; ++nan) {
        if (nan == at) continue;
        auto z = y;
        z[size_t(nan)] = T(NAN);
        wrong += largest_of(z.data(), n) != T(5);
      }
    }
    wrong += largest_of(std::vector<T>(size_t(n), lowest).data(), n) != lowest;
    wrong += largest_of(std::vector<T>(size_t(n), T(NAN)).data(), n) != lowest;
    wrong += largest_of(std::vector<T>(size_t(n), T(-3)).data(), n) != T(-3);
  }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("softmax_row: every length, scaled, in place, huge scores", T, float, double) {
  for (double size : {1.0, 30.0, 1e4})
    for (int n = 1; n <= 70; ++n) {
      std::vector<double> s = random_numbers(size_t(n), 2), wanted(s.size());
      for (double& x : s) x = double(T(x * size));
      const double scale = double(T(0.3));
      double total = 0, top = *std::max_element(s.begin(), s.end());
      for (size_t j = 0; j < s.size(); ++j) total += wanted[j] = std::exp(scale * (s[j] - top));
      for (double& p : wanted) p /= total;
      std::vector<T> p = as<T>(s);
      softmax_row(p.data(), p.data(), n, T(scale));
      // The exponent's rounding is multiplied by its size, up to 9 where p is not tiny.
      CHECK(difference("softmax", {n}, p.data(), wanted, 8) == "");
      T sum = 0;
      for (T x : p) sum += x;
      CHECK(std::abs(sum - 1) < 20 * std::numeric_limits<T>::epsilon());
    }
}

TEST_CASE_TEMPLATE("softmax_row: extremes and what is no number", T, float, double) {
  const T big = std::numeric_limits<T>::max() / 2, infinite = std::numeric_limits<T>::infinity();
  const auto row = [](std::vector<T> s) {
    std::vector<T> p(s.size());
    poison(p);
    softmax_row(p.data(), s.data(), int(s.size()), T(1));
    return p;
  };
  CHECK(row({big, -big, big, -big}) == std::vector<T>{T(0.5), 0, T(0.5), 0});
  CHECK(row({-big, -big}) == std::vector<T>{T(0.5), T(0.5)});
  CHECK(row({3, -infinite, 3}) == std::vector<T>{T(0.5), 0, T(0.5)});
  CHECK(row({-7}) == std::vector<T>{1});
  for (int n : {1, 2, 3, 17, 40, 70})
    for (int at = 0; at < n; ++at)
      for (T bad : {T(NAN), infinite}) {
        std::vector<T> s = as<T>(random_numbers(size_t(n), 3));
        s[size_t(at)] = bad;
        for (T p : row(s))
          if (!std::isnan(p)) FAIL_CHECK("n = ", n, ", ", bad, " at ", at, " gave ", p);
      }
  for (T p : row({-infinite, -infinite})) CHECK(std::isnan(p));
}
