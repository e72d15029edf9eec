// Stage 01: the exponential, the softmax of a row, its Jacobian, and the bound on how far it moves.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "analysis/sensitivity.h"
#include "close.h"
#include "tensor/softmax.h"

using namespace focus;
using namespace focus::test;

namespace {

using Row = std::vector<double>;

// softmax(scale · s) straight from the definition, in double.
Row reference_softmax(const Row& s, double scale) {
  const double top = *std::max_element(s.begin(), s.end());
  double total = 0;
  Row p(s.size());
  for (size_t j = 0; j < s.size(); ++j) total += p[j] = std::exp(scale * (s[j] - top));
  for (double& x : p) x /= total;
  return p;
}

template <class T>
std::vector<T> softmax_of(const std::vector<T>& s, T scale = 1) {
  std::vector<T> p(s.size());
  poison(p);
  softmax_row(p.data(), s.data(), int(s.size()), scale);
  return p;
}

double distance(const Row& a, const Row& b) {  // ‖a - b‖₁
  double sum = 0;
  for (size_t j = 0; j < a.size(); ++j) sum += std::abs(a[j] - b[j]);
  return sum;
}

}  // namespace

TEST_CASE("exponential: within 3 units of the last place") {
  double worst = 0;
  float worst_at = 0;
  for (int i = 0; i <= 400'000; ++i) {
    const float x = float(-87.2 + i * (175.8 / 4e5));
    const double wanted = std::exp(double(x));
    const double unit = std::exp2(std::floor(std::log2(wanted)) - 23);
    const double off = std::abs(double(exponential(x)) - wanted) / unit;
    if (!(off <= worst)) worst = off, worst_at = x;
  }
  INFO("a short series is wrong far from multiples of ln 2, a rough ln 2 for large |x|");
  CHECK_MESSAGE(worst <= 3, "exponential(", worst_at,
                "): ", got_wanted(double(exponential(worst_at)), std::exp(double(worst_at))),
                " (off by ", worst, " units of the last place, limit 3)");
  CHECK(exponential(0.f) == 1.f);
  CHECK(exponential(-std::numeric_limits<float>::infinity()) == 0.f);
  CHECK(exponential(std::numeric_limits<float>::infinity()) ==
        std::numeric_limits<float>::infinity());
  for (uint32_t payload = 0; payload < 1024; ++payload)
    for (uint32_t sign : {0u, 0x80000000u})
      if (const float nan = std::bit_cast<float>(sign | 0x7fc00000u | payload);
          !std::isnan(exponential(nan))) {
        FAIL_CHECK("exponential(NaN): got ", exponential(nan), ", wanted NaN");
        return;
      }
}

TEST_CASE_TEMPLATE("softmax: every length, scaled, in place, weights that sum to 1", T, float,
                   double) {
  for (int n = 1; n <= 70; ++n) {
    Row s = random_numbers(size_t(n), 1);
    for (double& x : s) x = double(T(8 * x));
    const double scale = double(T(0.3));
    const Row wanted = reference_softmax(s, scale);
    const std::vector<T> scores = as<T>(s), p = softmax_of(scores, T(scale));
    INFO("softmax of ", n, " scores with scale ", scale);
    INFO(
        "all too large by one factor: not every weight is in the sum; wrong in double only: float "
        "is used somewhere");
    CHECK(difference("p", {n}, p.data(), wanted, 8) == "");
    std::vector<T> in_place = scores;
    softmax_row(in_place.data(), in_place.data(), n, T(scale));
    CHECK_MESSAGE(other_bits(in_place, p) == "", "p in the scores' place, ",
                  other_bits(in_place, p));
    double sum = 0;
    for (T x : p) sum += double(x);
    CHECK_MESSAGE(std::abs(sum - 1) <= 20 * double(std::numeric_limits<T>::epsilon()),
                  "the weights sum to ", sum);
  }
}

TEST_CASE_TEMPLATE("softmax: scores far from 0 neither overflow nor vanish", T, float, double) {
  INFO("only differences of scores matter: take the largest off before the exponential");
  for (double offset : {0.0, 1000.0, -1000.0, 30000.0, -30000.0})
    for (double scale : {1.0, 0.125}) {
      // Eighths, so that adding the offset rounds nothing.
      Row s = {1, 0.5, -2.125, 3, 2.875, 0, -7};
      const Row wanted = reference_softmax(s, scale);
      for (double& x : s) x += offset;
      const std::vector<T> p = softmax_of(as<T>(s), T(scale));
      CHECK(difference(str("scores near ", offset, ", scale ", scale, ": p"), {7}, p.data(), wanted,
                       8) == "");
    }
  const T big = std::numeric_limits<T>::max() / 4, gone = -std::numeric_limits<T>::infinity();
  CHECK(softmax_of<T>({big, -big, big}) == std::vector<T>{T(0.5), 0, T(0.5)});
  CHECK(softmax_of<T>({3, gone, 3, gone}) == std::vector<T>{T(0.5), 0, T(0.5), 0});
}

TEST_CASE_TEMPLATE("softmax: the largest score stands anywhere", T, float, double) {
  for (int n : {3, 40})
    for (int at = 0; at < n; ++at) {
      std::vector<T> s(size_t(n), 0), wanted(size_t(n), 0);
      s[size_t(at)] = 30000, wanted[size_t(at)] = 1;
      CHECK_MESSAGE(softmax_of(s) == wanted, n, " scores of 0, but 30000 at ", at,
                    ": got other weights than a 1 there and zeros");
    }
}

TEST_CASE_TEMPLATE("softmax: a score that is NaN or +inf makes its whole row NaN", T, float,
                   double) {
  for (int n : {1, 3, 40})
    for (int at = 0; at < n; ++at)
      for (T bad : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
        std::vector<T> s(size_t(n), 1);
        s[size_t(at)] = bad;
        const std::vector<T> p = softmax_of(s);
        const auto numbers = std::count_if(p.begin(), p.end(), [](T x) { return x == x; });
        CHECK_MESSAGE(numbers == 0, n, " scores, ", bad, " at ", at, ": got ", numbers,
                      " weights that are numbers, wanted none");
      }
}

TEST_CASE("softmax backward: the Jacobian, against differences of the softmax") {
  // For each weight p_i: with dp = (0 … 1 … 0), 1 at place i, ds_j is ∂p_i/∂s_j.
  const double h = 6e-6, scale = 0.7;
  for (int n : {1, 2, 7, 33}) {
    Row s = random_numbers(size_t(n), 2);
    for (double& x : s) x *= 3;
    const Row p = softmax_of(s, scale);
    for (int i = 0; i < n; ++i) {
      Row wanted, ds(size_t(n), 0.0);
      for (int j = 0; j < n; ++j) {
        Row up = s, down = s;
        up[size_t(j)] += h, down[size_t(j)] -= h;
        wanted.push_back((softmax_of(up, scale)[size_t(i)] - softmax_of(down, scale)[size_t(i)]) /
                         (2 * h));
      }
      ds[size_t(i)] = 1;
      softmax_row_backward(ds.data(), ds.data(), p.data(), n, scale);
      // 1e-9: the differences round by about ε/h = 4e-11 and bend by h² = 4e-11.
      const std::string wrong = difference(str("n = ", n, ", dp = 1 at ", i, ": ds"), {n},
                                           ds.data(), wanted, 1e-9 / 2.2e-16);
      if (wrong != "") {
        FAIL_CHECK(wrong, "\nwanted is scale · p_j (dp_j - Σ p_i dp_i); ds and dp are one array");
        break;
      }
    }
  }
}

TEST_CASE_TEMPLATE("softmax backward: ds beside dp or in its place", T, float, double) {
  for (int n : {1, 3, 16, 31, 65}) {
    const std::vector<T> p = softmax_of(as<T>(random_numbers(size_t(n), 3)));
    const std::vector<T> dp = as<T>(random_numbers(size_t(n), 4));
    Row wanted(size_t(n), 0.0);
    for (size_t j = 0; j < wanted.size(); ++j)
      for (size_t i = 0; i < wanted.size(); ++i)
        wanted[j] += 0.5 * double(p[j]) * ((i == j) - double(p[i])) * double(dp[i]);
    std::vector<T> ds(size_t(n), T(NAN)), same = dp;
    softmax_row_backward(ds.data(), dp.data(), p.data(), n, T(0.5));
    CHECK(difference("ds", {n}, ds.data(), wanted, 4) == "");
    softmax_row_backward(same.data(), same.data(), p.data(), n, T(0.5));
    CHECK_MESSAGE(same == ds, "n = ", n, ": another result where ds is dp: is dp read too late?");
  }
}

TEST_CASE("a softmax moves by at most the bound, and some rows reach the largest sensitivity") {
  for (int n : {2, 5, 40, 600})
    for (double delta = 0; delta <= 14; delta += 0.5) {
      const double largest = largest_sensitivity(n, delta);
      CHECK(largest <= sensitivity_bound(n, delta) * (1 + 1e-14));
      CHECK(largest >= 0.75 * sensitivity_bound(n, delta) * (1 - 1e-14));

      // Measured: the 1-norm by which the softmax moves when one score does.
      if (n > 2) {
        const Row a = most_sensitive_scores(n, delta);
        Row b = a;
        b[0] -= 1e-6;
        const double measured = distance(softmax_of(a), softmax_of(b)) / 1e-6;
        CHECK(dispersion(a) == doctest::Approx(delta));
        CHECK_MESSAGE(std::abs(measured - softmax_sensitivity(a)) <= 1e-6, "n = ", n,
                      ", δ = ", delta, ": moves by ", measured, ", max 2p(1-p) is ",
                      softmax_sensitivity(a));
        CHECK_MESSAGE(std::abs(softmax_sensitivity(a) - largest) <= 1e-12, "n = ", n,
                      ", δ = ", delta, ": ", got_wanted(softmax_sensitivity(a), largest));
      }

      // Any other two rows of at most this dispersion.
      Row c = random_numbers(size_t(n), 5), d = random_numbers(size_t(n), 6);
      for (double& x : c) x *= delta / 2;
      for (double& x : d) x *= delta / 2;
      if (delta > 0)
        CHECK(distance(softmax_of(c), softmax_of(d)) <=
              sensitivity_bound(n, delta) * distance(c, d));
    }
}
