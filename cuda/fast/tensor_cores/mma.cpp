#include "cuda/fast/tensor_cores/mma.h"

#include <cstring>

namespace focus::gpu {

namespace {

float from_tf32(unsigned bits) {
  return __uint_as_float(bits & 0xFFFFE000u);  // the hardware does not look at the rest
}
float low_bf16(unsigned bits) {
  return __uint_as_float(bits << 16);
}
float high_bf16(unsigned bits) {
  return __uint_as_float(bits & 0xFFFF0000u);
}

unsigned to_bf16(float x) {
  const unsigned bits = __float_as_uint(x);
  if (x != x) return 0x7FFF;
  return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}

// What a lane brings to a product with K inner numbers, and takes away: c.
template <int K, int AS, int BS>
struct Lane {
  float* c;
  const unsigned (&a)[AS];
  const unsigned (&b)[BS];
};

// Spreads out the fragments, multiplies, and gives each lane its four sums. A register holds
// `numbers` numbers; unpack(bits, e) is number e of them.
template <class L, int K, int AS, int BS, class Unpack>
void multiply_lanes(void* const (&lanes)[32], int numbers, const Unpack& unpack) {
  double a[16][K], b[K][8], c[16][8];
  // The A registers come in pairs, for rows g and g + 8; B's have one column each.
  for (int lane = 0; lane < 32; ++lane) {
    const L& l = *static_cast<const L*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < AS; ++i)
      for (int e = 0; e < numbers; ++e)
        a[g + 8 * (i % 2)][numbers * t + e + 4 * numbers * (i / 2)] = double(unpack(l.a[i], e));
    for (int i = 0; i < BS; ++i)
      for (int e = 0; e < numbers; ++e)
        b[numbers * t + e + 4 * numbers * i][g] = double(unpack(l.b[i], e));
    for (int i = 0; i < 4; ++i) c[g + 8 * (i / 2)][2 * t + i % 2] = double(l.c[i]);
  }
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < K; ++k)
      for (int n = 0; n < 8; ++n) c[m][n] += a[m][k] * b[k][n];
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i)
      static_cast<const L*>(lanes[lane])->c[i] =
          float(c[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2]);
}

void multiply_lanes_tf32(void* const (&lanes)[32]) {
  multiply_lanes<Lane<8, 4, 2>, 8, 4, 2>(lanes, 1,
                                         [](unsigned bits, int) { return from_tf32(bits); });
}
template <int K>
void multiply_lanes_bf16(void* const (&lanes)[32]) {
  multiply_lanes<Lane<K, K / 4, K / 8>, K, K / 4, K / 8>(
      lanes, 2, [](unsigned bits, int e) { return e == 0 ? low_bf16(bits) : high_bf16(bits); });
}

struct Rows {
  unsigned* to;
  const unsigned* row;
};
template <bool TRANSPOSED>
void load_lanes(void* const (&lanes)[32]) {
  unsigned m[4][8][4];  // all rows
  for (int lane = 0; lane < 32; ++lane)
    std::memcpy(m[lane / 8][lane % 8], static_cast<const Rows*>(lanes[lane])->row, 16);
  const auto number = [&](int i, int row, int column) {
    return m[i][row][column / 2] >> (column % 2 * 16) & 0xFFFF;
  };
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int g = lane / 4, t = lane % 4;
      static_cast<const Rows*>(lanes[lane])->to[i] =
          TRANSPOSED ? number(i, 2 * t, g) | number(i, 2 * t + 1, g) << 16 : m[i][g][t];
    }
}

}  // namespace

unsigned to_tf32(float x) {
  const unsigned bits = __float_as_uint(x);
  if (x != x) return 0x7FFFFFFF;
  if ((bits << 1) == 0xFF000000u) return bits;  // infinite
  return (bits + 0x1000) & 0xFFFFE000u;
}

unsigned to_bf16s(float low, float high) {
  return to_bf16(low) | to_bf16(high) << 16;
}

void multiply_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], const char* file,
                   int line) {
  Lane<8, 4, 2> mine{c, a, b};
  simt::warp_works(multiply_lanes_tf32, &mine, file, line);
}
void multiply_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], const char* file,
                   int line) {
  Lane<16, 4, 2> mine{c, a, b};
  simt::warp_works(multiply_lanes_bf16<16>, &mine, file, line);
}
void multiply_bf16(float (&c)[4], const unsigned (&a)[2], const unsigned (&b)[1], const char* file,
                   int line) {
  Lane<8, 2, 1> mine{c, a, b};
  simt::warp_works(multiply_lanes_bf16<8>, &mine, file, line);
}

void load_matrices(unsigned (&to)[4], const unsigned* row, const char* file, int line) {
  Rows mine{to, row};
  simt::warp_works(load_lanes<false>, &mine, file, line);
}
void load_transposed(unsigned (&to)[4], const unsigned* row, const char* file, int line) {
  Rows mine{to, row};
  simt::warp_works(load_lanes<true>, &mine, file, line);
}

}  // namespace focus::gpu
