// ReLU, GELU and Mish of one number, and their slopes. See src/ops/activation.cpp for the formulas.
#pragma once

#include <type_traits>

#include "cuda/simt/simt.h"
#include "ops/activation.h"

namespace focus::gpu {

__device__ __forceinline__ float gaussian_below(float x) {  // Φ(x)
  return 0.5f * (1.f + erff(x * 0.70710678118654752f));
}
__device__ __forceinline__ float mish_gate(float x) {
  if (x > 20.f) return 1.f;
  const float e = expf(x), n = e * (e + 2.f);
  return n / (n + 2.f);
}

__device__ __forceinline__ float activation_value(Activation a, float x) {
  if (a == Activation::gelu) return x * gaussian_below(x);
  if (a == Activation::mish) return x * mish_gate(x);
  return x > 0.f || x != x ? x : 0.f;
}
__device__ __forceinline__ float activation_slope(Activation a, float x) {
  if (a == Activation::gelu)
    return gaussian_below(x) + x * 0.39894228040143268f * expf(-0.5f * x * x);
  if (a == Activation::mish) {
    const float g = mish_gate(x);
    return g + x * (1.f - g * g) / (1.f + expf(-x));
  }
  return x > 0.f ? 1.f : 0.f;
}

// Calls f(std::integral_constant<Activation, A>): kernels that hold many numbers a thread compile
// the one function they need.
template <class F>
void for_activation(Activation a, const F& f) {
  if (a == Activation::gelu) return f(std::integral_constant<Activation, Activation::gelu>{});
  if (a == Activation::mish) return f(std::integral_constant<Activation, Activation::mish>{});
  f(std::integral_constant<Activation, Activation::relu>{});
}

}  // namespace focus::gpu
