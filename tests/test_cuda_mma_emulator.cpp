// The emulated tensor core: who holds which number, how factors are rounded, who must come.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "cuda/fast/tensor_cores/mma.h"
#include "error.h"
#include "rng.h"

using namespace focus;
using namespace focus::gpu;

namespace {

float bits(unsigned x) {
  return __uint_as_float(x);
}

struct Matrices {
  float a[16][16], b[16][8], c[16][8];
  explicit Matrices(uint64_t seed) {
    Rng rng(seed, Stream::analysis);
    // Numbers of few digits: every precision holds them, and every sum is exact.
    const auto draw = [&] { return float(int(rng.below(15)) - 7) / 4; };
    for (auto& row : a)
      for (float& x : row) x = draw();
    for (auto& row : b)
      for (float& x : row) x = draw();
    for (auto& row : c)
      for (float& x : row) x = draw();
  }
  float product(int m, int n, int inner) const {
    float sum = c[m][n];
    for (int k = 0; k < inner; ++k) sum += a[m][k] * b[k][n];
    return sum;
  }
};

// multiply(m, c, g, t): a lane's product, with the fragments that it takes from m.
template <class F>
void check_layout(int inner, const F& multiply) {
  for (uint64_t seed : {1u, 2u, 3u}) {
    const Matrices m(seed);
    float result[16][8];
    simt::set_seed(seed);
    simt::run_grid({"layout", {1, 1, 1}, {32, 1, 1}, 0}, [&] {
      const int g = int(threadIdx.x) / 4, t = int(threadIdx.x) % 4;
      float c[4] = {m.c[g][2 * t], m.c[g][2 * t + 1], m.c[g + 8][2 * t], m.c[g + 8][2 * t + 1]};
      multiply(m, c, g, t);
      for (int i = 0; i < 4; ++i) result[g + 8 * (i / 2)][2 * t + i % 2] = c[i];
    });
    simt::set_seed(0);
    for (int row = 0; row < 16; ++row)
      for (int n = 0; n < 8; ++n) CHECK(result[row][n] == m.product(row, n, inner));
  }
}

}  // namespace

TEST_CASE("mma: the layout of the fragments") {
  check_layout(8, [](const Matrices& m, float(&c)[4], int g, int t) {
    const unsigned a[4] = {to_tf32(m.a[g][t]), to_tf32(m.a[g + 8][t]), to_tf32(m.a[g][t + 4]),
                           to_tf32(m.a[g + 8][t + 4])};
    const unsigned b[2] = {to_tf32(m.b[t][g]), to_tf32(m.b[t + 4][g])};
    multiply_tf32(c, a, b);
  });
  check_layout(8, [](const Matrices& m, float(&c)[4], int g, int t) {
    const unsigned a[2] = {to_bf16s(m.a[g][2 * t], m.a[g][2 * t + 1]),
                           to_bf16s(m.a[g + 8][2 * t], m.a[g + 8][2 * t + 1])};
    const unsigned b[1] = {to_bf16s(m.b[2 * t][g], m.b[2 * t + 1][g])};
    multiply_bf16(c, a, b);
  });
  check_layout(16, [](const Matrices& m, float(&c)[4], int g, int t) {
    unsigned a[4], b[2];
    for (int i = 0; i < 4; ++i) {
      const int row = g + 8 * (i % 2), k = 2 * t + 8 * (i / 2);
      a[i] = to_bf16s(m.a[row][k], m.a[row][k + 1]);
    }
    for (int i = 0; i < 2; ++i) b[i] = to_bf16s(m.b[2 * t + 8 * i][g], m.b[2 * t + 8 * i + 1][g]);
    multiply_bf16(c, a, b);
  });
}

TEST_CASE("mma: matrices of 16-bit numbers, as rows and as columns, wherever their rows lie") {
  alignas(16) unsigned memory[40][4];
  const auto row_at = [&](int i, int row) { return memory[(7 * (8 * i + row) + 3) % 40]; };
  const auto number = [](int i, int row, int column) {
    return unsigned(1000 * i + 10 * row + column);
  };
  for (int i = 0; i < 4; ++i)
    for (int row = 0; row < 8; ++row)
      for (int w = 0; w < 4; ++w)
        row_at(i, row)[w] = number(i, row, 2 * w) | number(i, row, 2 * w + 1) << 16;
  unsigned rows[32][4], columns[32][4];
  simt::run_grid({"matrices", {1, 1, 1}, {32, 1, 1}, 0}, [&] {
    const int lane = int(threadIdx.x);
    unsigned x[4];
    load_matrices(x, row_at(lane / 8, lane % 8));
    for (int i = 0; i < 4; ++i) rows[lane][i] = x[i];
    load_transposed(x, row_at(lane / 8, lane % 8));
    for (int i = 0; i < 4; ++i) columns[lane][i] = x[i];
  });
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int g = lane / 4, t = lane % 4;
      CHECK(rows[lane][i] == (number(i, g, 2 * t) | number(i, g, 2 * t + 1) << 16));
      CHECK(columns[lane][i] == (number(i, 2 * t, g) | number(i, 2 * t + 1, g) << 16));
    }
}

TEST_CASE("mma: rounding to tf32") {
  CHECK(to_tf32(1.5f) == __float_as_uint(1.5f));
  // Half of the last place goes away from zero, less than half to zero.
  CHECK(bits(to_tf32(1 + 0x1p-11f)) == 1 + 0x1p-10f);
  CHECK(bits(to_tf32(-1 - 0x1p-11f)) == -1 - 0x1p-10f);
  CHECK(bits(to_tf32(std::nextafter(1 + 0x1p-11f, 0.f))) == 1);
  CHECK(bits(to_tf32(1 + 0x1.8p-10f)) == 1 + 0x1p-9f);
  CHECK(bits(to_tf32(-0.f)) == 0);
  CHECK(std::signbit(bits(to_tf32(-0.f))));
  CHECK(std::isinf(bits(to_tf32(std::numeric_limits<float>::max()))));
  CHECK(bits(to_tf32(-INFINITY)) == -INFINITY);
  CHECK(std::isnan(bits(to_tf32(NAN))));
  // A NaN that only the lowest bits tell from infinity.
  CHECK(std::isnan(bits(to_tf32(bits(0x7F800001)))));
  Rng rng(5, Stream::analysis);
  for (int i = 0; i < 1000; ++i) {
    const float x = float(rng.uniform()) * 8 - 4, y = bits(to_tf32(x));
    CHECK(std::abs(y - x) <= std::ldexp(std::abs(x), -11));
    CHECK((__float_as_uint(y) & 0x1FFF) == 0);
  }
}

TEST_CASE("mma: rounding to bf16") {
  const auto low = [](float x) { return bits(to_bf16s(x, 7) << 16); };
  const auto high = [](float x) { return bits(to_bf16s(7, x) & 0xFFFF0000u); };
  CHECK(to_bf16s(1.f, -2.f) == 0xC0003F80u);
  // Half of the last place goes to the even neighbour.
  CHECK(low(1 + 0x1p-8f) == 1);
  CHECK(low(1 + 0x1.8p-7f) == 1 + 0x1p-6f);
  CHECK(high(std::nextafter(1 + 0x1p-8f, 2.f)) == 1 + 0x1p-7f);
  CHECK(std::isinf(low(std::numeric_limits<float>::max())));
  CHECK(high(-INFINITY) == -INFINITY);
  CHECK(std::isnan(low(NAN)));
  CHECK(std::isnan(high(bits(0x7F800001))));
}

TEST_CASE("mma: the hardware looks at tf32's bits only, and keeps infinities and NaNs") {
  for (const float x : {1 + 0x1.fp-11f, INFINITY, NAN}) {
    float result[32];
    simt::run_grid({"bits", {1, 1, 1}, {32, 1, 1}, 0}, [&] {
      const unsigned one = to_tf32(1);
      const unsigned a[4] = {__float_as_uint(x), 0, 0, 0}, b[2] = {one, 0};
      float c[4] = {};
      multiply_tf32(c, a, b);
      result[threadIdx.x] = c[0];
    });
    for (const float y : result) CHECK((std::isnan(x) ? std::isnan(y) : y == 4 * (x < 2 ? 1 : x)));
  }
}

TEST_CASE("mma: a lane that does not come is reported") {
  const auto run = [](unsigned absent) {
    simt::run_grid({"absent", {1, 1, 1}, {32, 1, 1}, 0}, [=] {
      if (threadIdx.x == absent) return;
      const unsigned a[4] = {}, b[2] = {};
      float c[4] = {};
      multiply_tf32(c, a, b);
    });
  };
  CHECK_THROWS_WITH_AS(run(7), doctest::Contains("a matrix product is reached by 31 of 32"),
                       RunError);
  run(99);
}
