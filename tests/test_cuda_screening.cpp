// Rung 17 looks for candidates at low precision; what it chooses must be what float32 chooses, also
// where the screen is of no use. Inputs lie on grids on which float32's sums are exact, so that the
// choice depends on no order of additions.
#include <cstring>

#include "cuda_run.h"

using namespace focus;
using namespace focus::test;

namespace {

// Normal numbers, rounded to multiples of `step`.
Numbers on_grid(const Sizes& s, uint32_t which, double step) {
  Numbers x = normal_numbers(s, which);
  for (double& value : x) value = std::round(value / step) * step;
  return x;
}
Numbers queries(const Sizes& s) {
  return on_grid(s, 1, 1.0 / 8);
}
Numbers keys(const Sizes& s) {
  return on_grid(s, 2, 1.0 / 1024);
}

// "" if two results agree: on a GPU every bit, under emulation, where the compiler may round
// products or not, to 1e-6. A NaN agrees with a NaN.
std::string difference(const gpu::DeviceArray<float>& a, const gpu::DeviceArray<float>& b) {
  const std::vector<float> x = a.host(), y = b.host();
  for (size_t i = 0; i < x.size(); ++i) {
    const bool same = gpu::emulated() ? std::abs(x[i] - y[i]) <= 1e-6 * (1 + std::abs(y[i]))
                                      : std::memcmp(&x[i], &y[i], 4) == 0;
    if (!same && !(std::isnan(x[i]) && std::isnan(y[i])))
      return str("number ", i, " is ", x[i], ", not ", y[i]);
  }
  return "";
}

// Rung 17 beside rung 16, which gives every key its score in float32. nan: some scores are no
// numbers; the keys of such a query are anyone's.
void check_same(const std::string& what, const Sizes& s, int kept, const Numbers& q,
                const Numbers& k, bool nan = false) {
  INFO(str(what, ", T ", s.T, ", D ", s.D, ", k ", kept));
  const Numbers v = normal_numbers(s, 7), none(q.size());
  KernelRun exact(s, Pattern::topk, kept, 0, q, k, v, none),
      screened(s, Pattern::topk, kept, 0, q, k, v, none);
  if (!screened.supports(17)) return;  // an older GPU
  exact.run(gpu::Pass::forward, 16);
  screened.run(gpu::Pass::forward, 17);
  if (!nan) CHECK(screened.keys.host() == exact.keys.host());
  CHECK(difference(screened.p, exact.p) == "");
  CHECK(difference(screened.o, exact.o) == "");
}

Numbers scaled(Numbers x, double factor) {
  for (double& value : x) value *= factor;
  return x;
}

int long_length() {
  return small_sizes() ? 300 : 1500;
}

}  // namespace

TEST_CASE("cuda screening: the keys of float32, for every width and list") {
  for (int D : {16, 20, 64})
    for (int kept : {1, 5, 7, 16}) {
      const Sizes s{1, long_length() + D, 1, D};
      check_same("normal", s, kept, queries(s), keys(s));
    }
  const Sizes longer{1, 1000, 1, 16};  // than what stays in shared memory
  check_same("longer", longer, 5, queries(longer), keys(longer));
  const Sizes heads{2, 133, 3, 32};
  check_same("heads", heads, 5, queries(heads), keys(heads));
}

TEST_CASE("cuda screening: scores closer than the screen can tell apart") {
  const Sizes s{1, long_length(), 1, 64};
  const Numbers q = on_grid(s, 1, 0.5), directions = on_grid(s, 2, 0.5);
  // Keys in groups of 12, or all of them, that differ in the last of their 14 binary places.
  for (int group : {12, s.T}) {
    Numbers k(q.size());
    for (int t = 0; t < s.T; ++t)
      for (int c = 0; c < s.D; ++c)
        k[s.at(0, t, c)] = directions[s.at(0, t / group, c)] + (t * 7 + c) % 13 / 16384.0;
    for (int kept : {1, 5, 16}) check_same(str("groups of ", group), s, kept, q, k);
  }
  // Large keys that lie across the query, so that the bound is far wider than the scores.
  Numbers across = q, k = keys(s);
  for (int t = 0; t < s.T; ++t) across[s.at(0, t, 0)] = 0, k[s.at(0, t, 0)] = 4096;
  check_same("across", s, 5, across, k);
}

TEST_CASE("cuda screening: numbers at the ends of float32's range") {
  const Sizes s{1, long_length() / 2, 1, 16};
  const Numbers q = queries(s), k = keys(s);
  for (int of_q : {-83, -40, 40, 63})
    for (int of_k : {-40, 40, 60})
      check_same(str("2^", of_q, " and 2^", of_k), s, 5, scaled(q, std::exp2(of_q)),
                 scaled(k, std::exp2(of_k)), of_q + of_k > 100);
  Numbers zero = q;
  for (int c = 0; c < s.D; ++c) zero[s.at(0, 3, c)] = 0;
  check_same("a query of zeros", s, 5, zero, k);
  for (double bad : {double(NAN), double(INFINITY)}) {
    Numbers broken = k;
    broken[s.at(0, s.T - 2, 5)] = bad;
    check_same(str("a key with ", bad), s, 5, q, broken, true);
    broken = q;
    broken[s.at(0, 7, 2)] = bad;
    check_same(str("a query with ", bad), s, 5, broken, k, true);
  }
}
