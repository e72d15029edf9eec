// The products of product.cuh on tensor cores: who multiplies what, and how factors are rounded.
//
// A warp multiplies tiles of 16 × 8 by 8 × 8 numbers (cuda/simt/mma.h has the layout). A thread
// with lane 4·g + t then holds of a result, in each of its tiles, the rows g and g + 8 and the
// columns 2t and 2t + 1: with the warp's 8 columns and tile below tile that is a Tile as in
// product.cuh, of every eighth row and two neighbouring columns, so what comes before and after a
// product is the same code at every precision.
//
// Fragments are read from the matrices where they lie, number by number. With rows 68 floats apart,
// the 32 numbers (g, t) of a fragment lie in different banks if the inner numbers run along the
// rows (4·g + t), and also if they run down the columns and t stands for every second inner number
// (8·t + g): the order of the inner numbers is free, as long as both factors agree. Only a product
// whose factors differ in this costs a second turn of the banks, for B's numbers, the fewer.
#pragma once

#include "cuda/simt/mma.h"
#include "cuda/simt/simt.h"
#include "tensor/precision.h"

namespace focus::gpu::one_launch {

// The numbers of 8 inner ones that a lane holds, as they lie in memory: of A in two rows, of B.
struct RawA {
  float at[4];
};
struct RawB {
  float at[2];
};

// What is known of the numbers of a factor. An activation is read by every warp, so at tf32 whoever
// writes one rounds it, once (`operand`); rounding takes three instructions, since a NaN must
// remain one. Weights are read by one warp each and rounded as they are read: no NaN is among them,
// as an update that meets one is not made.
enum class Numbers { any, rounded, weights };

// A number as it is written for products to read.
template <Precision P>
__device__ __forceinline__ float operand(float x) {
  return P == Precision::tf32 ? __uint_as_float(to_tf32(x)) : x;
}
template <Precision P>
__device__ __forceinline__ float2 operand(float2 x) {
  return make_float2(operand<P>(x.x), operand<P>(x.y));
}
template <Precision P>
__device__ __forceinline__ float4 operand(float4 x) {
  return make_float4(operand<P>(x.x), operand<P>(x.y), operand<P>(x.z), operand<P>(x.w));
}

// Factors of tensor cores' products, rounded; and the products of 8 inner numbers, or of 16.
template <Precision P>
struct Factors;

template <>
struct Factors<Precision::tf32> {
  struct A {
    unsigned at[4];
  };
  struct B {
    unsigned at[2];
  };
  template <Numbers N>
  static __device__ __forceinline__ unsigned rounded(float x) {
    // The tensor core cuts off the rest.
    if (N == Numbers::weights) return __float_as_uint(x) + 0x1000;
    return N == Numbers::rounded ? __float_as_uint(x) : to_tf32(x);
  }
  template <Numbers N>
  static __device__ __forceinline__ A of(const RawA& x) {
    return {{rounded<N>(x.at[0]), rounded<N>(x.at[1]), rounded<N>(x.at[2]), rounded<N>(x.at[3])}};
  }
  template <Numbers N>
  static __device__ __forceinline__ B of(const RawB& x) {
    return {{rounded<N>(x.at[0]), rounded<N>(x.at[1])}};
  }
  static __device__ __forceinline__ void add(float (&c)[4], const A& a, const B& b) {
    multiply_tf32(c, a.at, b.at);
  }
  static __device__ __forceinline__ void add(float (&c)[4], const A (&a)[2], const B (&b)[2]) {
    multiply_tf32(c, a[0].at, b[0].at);
    multiply_tf32(c, a[1].at, b[1].at);
  }
};

// x = high + low, both cut off, not rounded, which takes two instructions: what is lost is below
// 2⁻²⁰ of x. Of the four products of parts the smallest is left out; small ones come first. (An
// infinite x becomes a NaN, which stops a run as well.)
template <>
struct Factors<Precision::tf32x3> {
  struct A {
    unsigned high[4], low[4];
  };
  struct B {
    unsigned high[2], low[2];
  };
  static __device__ __forceinline__ void split(float x, unsigned& high, unsigned& low) {
    high = __float_as_uint(x) & 0xFFFFE000u;
    low = __float_as_uint(x - __uint_as_float(high));
  }
  template <Numbers N>
  static __device__ __forceinline__ A of(const RawA& x) {
    A a;
#pragma unroll
    for (int i = 0; i < 4; ++i) split(x.at[i], a.high[i], a.low[i]);
    return a;
  }
  template <Numbers N>
  static __device__ __forceinline__ B of(const RawB& x) {
    B b;
#pragma unroll
    for (int i = 0; i < 2; ++i) split(x.at[i], b.high[i], b.low[i]);
    return b;
  }
  static __device__ __forceinline__ void add(float (&c)[4], const A& a, const B& b) {
    multiply_tf32(c, a.low, b.high);
    multiply_tf32(c, a.high, b.low);
    multiply_tf32(c, a.high, b.high);
  }
  static __device__ __forceinline__ void add(float (&c)[4], const A (&a)[2], const B (&b)[2]) {
    add(c, a[0], b[0]);
    add(c, a[1], b[1]);
  }
};

// A register holds the inner numbers t and t + 4 of 8: any two do, if both factors take the same.
template <>
struct Factors<Precision::bf16> {
  struct A {
    unsigned at[2];
  };
  struct B {
    unsigned at[1];
  };
  template <Numbers N>
  static __device__ __forceinline__ A of(const RawA& x) {
    return {{to_bf16s(x.at[0], x.at[2]), to_bf16s(x.at[1], x.at[3])}};
  }
  template <Numbers N>
  static __device__ __forceinline__ B of(const RawB& x) {
    return {{to_bf16s(x.at[0], x.at[1])}};
  }
  static __device__ __forceinline__ void add(float (&c)[4], const A& a, const B& b) {
    multiply_bf16(c, a.at, b.at);
  }
  static __device__ __forceinline__ void add(float (&c)[4], const A (&a)[2], const B (&b)[2]) {
    const unsigned both_a[4] = {a[0].at[0], a[0].at[1], a[1].at[0], a[1].at[1]};
    const unsigned both_b[2] = {b[0].at[0], b[1].at[0]};
    multiply_bf16(c, both_a, both_b);
  }
};

// Adds to MT × NT tiles, in steps of 16 inner numbers and a last one of 8: a(m, n) and b(m, n) load
// the factors of tile m for the n-th 8 inner numbers, of which OF_A and OF_B tell. AHEAD: those of
// a step before the products of the step before it.
template <Precision P, Numbers OF_A, Numbers OF_B, int STEPS, bool AHEAD, int MT, int NT,
          class LoadA, class LoadB>
__device__ __forceinline__ void add_tiles(float (&c)[MT][NT][4], const LoadA& a, const LoadB& b) {
  using F = Factors<P>;
  struct Step {
    RawA a[MT][2];
    RawB b[NT][2];
  };
  const auto load = [&](Step& to, int n, int count) {
#pragma unroll
    for (int h = 0; h < count; ++h) {
#pragma unroll
      for (int m = 0; m < MT; ++m) to.a[m][h] = a(m, n + h);
#pragma unroll
      for (int j = 0; j < NT; ++j) to.b[j][h] = b(j, n + h);
    }
  };
  const auto multiply = [&](const Step& x) {
    typename F::B y[NT][2];
#pragma unroll
    for (int j = 0; j < NT; ++j) {
      y[j][0] = F::template of<OF_B>(x.b[j][0]);
      y[j][1] = F::template of<OF_B>(x.b[j][1]);
    }
#pragma unroll
    for (int m = 0; m < MT; ++m) {
      const typename F::A both[2] = {F::template of<OF_A>(x.a[m][0]),
                                     F::template of<OF_A>(x.a[m][1])};
#pragma unroll
      for (int j = 0; j < NT; ++j) F::add(c[m][j], both, y[j]);
    }
  };
  constexpr int pairs = STEPS / 2;
  Step now, next;
  if constexpr (AHEAD && pairs % 2 == 0) {
    load(now, 0, 2);
#pragma unroll 1
    for (int n = 0; n < 2 * pairs; n += 4) {
      load(next, n + 2, 2);
      multiply(now);
      load(now, (n + 4) % (2 * pairs), 2);
      multiply(next);
    }
  } else {
    // Unrolled, the loads of many tiles would need more registers than there are.
#pragma unroll(MT* NT > 6 ? 1 : 2)
    for (int n = 0; n < 2 * pairs; n += 2) {
      load(now, n, 2);
      multiply(now);
    }
  }
  if constexpr (STEPS % 2 == 1) {
    load(now, STEPS - 1, 1);
    typename F::B y[NT];
#pragma unroll
    for (int j = 0; j < NT; ++j) y[j] = F::template of<OF_B>(now.b[j][0]);
#pragma unroll
    for (int m = 0; m < MT; ++m) {
      const typename F::A x = F::template of<OF_A>(now.a[m][0]);
#pragma unroll
      for (int j = 0; j < NT; ++j) F::add(c[m][j], x, y[j]);
    }
  }
}

}  // namespace focus::gpu::one_launch
