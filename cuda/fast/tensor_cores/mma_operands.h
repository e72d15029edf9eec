// Factors of products on tensor cores: how a lane's numbers become what mma.h's instructions take,
// at each precision. The order of the inner numbers of a product is free, as long as both factors
// agree.
#pragma once

#include <type_traits>

#include "cuda/fast/tensor_cores/mma.h"
#include "tensor/precision.h"

namespace focus::gpu {

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
// as an update that meets one is not made; or, if many warps read them, prepared before
// (cuda/fast/blocks/row_mma.cuh).
enum class Numbers { any, rounded, weights, prepared };

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

// On the host: calls f(std::integral_constant<Precision, P>) for a precision other than fp32.
template <class F>
void for_tensor_core_precision(Precision precision, const F& f) {
  if (precision == Precision::tf32x3)
    f(std::integral_constant<Precision, Precision::tf32x3>{});
  else if (precision == Precision::tf32)
    f(std::integral_constant<Precision, Precision::tf32>{});
  else
    f(std::integral_constant<Precision, Precision::bf16>{});
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
    return N == Numbers::any ? to_tf32(x) : __float_as_uint(x);
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

}  // namespace focus::gpu
