// The softmax of one row, and the exponential it needs, as loops the compiler vectorises.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "tensor/simd.h"

namespace focus {

inline double exponential(double x) {
  return std::exp(x);
}

// eˣ in float to within 3 units in the last place, without a call, so that loops over it vectorise:
// x = n·ln 2 + r with integer n and |r| ≤ ln 2 / 2, then eˣ = 2ⁿ·eʳ with a Taylor polynomial for eʳ
// (its first dropped term, r⁷/7!, is below 2⁻²³). 0 below the smallest normal number, inf above the
// largest; NaN stays NaN.
inline float exponential(float x) {
  constexpr float smallest = -87.3f, largest = 88.7f;
  constexpr float round_magic = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
  const float clamped = x < smallest ? smallest : x > largest ? largest : x;
  const float shifted = clamped * 1.44269504f + round_magic;
  const float n = shifted - round_magic;
  // ln 2 in two parts: the first has so few bits that n times it is exact.
  //@ gap 01 exponential
  const float r = (clamped - n * 0.693145752f) - n * 1.42860677e-6f;
  float p = 1.f / 720;
  p = p * r + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  const uint32_t exponent =
      (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(round_magic)) << 23;
  const float result = std::bit_cast<float>(std::bit_cast<uint32_t>(p) + exponent);
  // A NaN argument leaves p NaN but its exponent bits arbitrary, hence the last test.
  return x < smallest  ? 0.f
         : x > largest ? std::numeric_limits<float>::infinity()
         : x == x      ? result
                       : x;
  //@ end
}

// The largest of n ≥ 1 numbers; NaN is passed over (-inf if there is nothing else).
template <class T>
inline T largest_of(const T* x, int n) {
  // Starting from -inf and not from x[0], since nothing compares above a NaN.
  T best = -std::numeric_limits<T>::infinity();
  int i = 0;
  if (n >= lanes<T>) {
    Vec<T> top = Vec<T>{} + best;
    for (; i + lanes<T> <= n; i += lanes<T>) {
      const Vec<T> v = load(x + i);
      top = v > top ? v : top;
    }
    for (int l = 0; l < lanes<T>; ++l) best = top[l] > best ? top[l] : best;
  }
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

// p_j = exp(scale·s_j) / Σ exp(scale·s_j) over n ≥ 1 scores; p may be s. The largest score is
// subtracted first, so nothing overflows. scale > 0. A NaN or +inf score makes the whole row NaN.
template <class T>
inline void softmax_row(T* p, const T* s, int n, T scale) {
  //@ gap 01 softmax-row
  const T top = largest_of(s, n);
  for (int j = 0; j < n; ++j) p[j] = exponential(scale * (s[j] - top));
  Vec<T> sums{};
  int j = 0;
  for (; j + lanes<T> <= n; j += lanes<T>) sums += load(p + j);
  if (j < n) sums += load_part(p + j, n - j);
  const T inverse = T(1) / sum<T>(sums);
  for (j = 0; j < n; ++j) p[j] *= inverse;
  //@ end
}

// The gradient of the scores from the gradient of the probabilities (Jacobian diag(p) - p pᵀ):
// ds_j = scale · p_j (dp_j - Σ_i p_i dp_i). ds may be dp.
template <class T>
inline void softmax_row_backward(T* ds, const T* dp, const T* p, int n, T scale) {
  //@ gap 01 softmax-backward
  const T mean = dot(p, dp, n);
  // Only now may ds be written: where it is dp, the mean had to see all of dp first.
  for (int j = 0; j < n; ++j) ds[j] = scale * p[j] * (dp[j] - mean);
  //@ end
}

}  // namespace focus
