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
  //@ begin 01 exponential points=7
  //@ plan 1. r: what is left of `clamped` without n * ln 2. Take off n * 0.693145752f first,
  //@ plan    then n * 1.42860677e-6f; the two numbers add up to ln 2.
  //@ plan 2. p: the series 1 + r + r²/2! + ... + r⁶/6!, from its last term inwards.
  //@ plan 3. Add n to the exponent of p, which begins at bit 23 of a float. The bits of `shifted`
  //@ plan    minus the bits of `round_magic` are n; std::bit_cast<uint32_t> gives a float's bits.
  //@ plan 4. Return that; but 0 for x < smallest, infinity for x > largest, and x if it is NaN.
  //@ hint 1 2ⁿ and eʳ are multiplied without a multiplication. Which bits of a float say by which
  //@ hint 1 power of two it is scaled, and what does adding 1 to that field do to the number?
  //@ hint 2 README, "The exponential": x = n ln 2 + r and eˣ = 2ⁿ eʳ. A float's bits are
  //@ hint 2 sign (1), exponent (8), fraction (23), from the top: n must reach bit 23 and up.
  //@ hint 3 r = (clamped - n times the long part of ln 2) - n times its short part
  //@ hint 3 p = 1/720
  //@ hint 3 for c in 1/120, 1/24, 1/6, 1/2, 1, 1 (as float constants):
  //@ hint 3   p = p times r, plus c
  //@ hint 3 steps = bits of shifted - bits of round_magic    (unsigned: a negative n wraps around)
  //@ hint 3 result = the float whose bits are: bits of p + (steps moved left by 23)
  //@ hint 3 return 0 if x < smallest, infinity if x > largest, x if x is NaN, result otherwise
  //@ notice No branch and no call, so the compiler runs 16 (or 8, or 4) of these at once; std::exp
  //@ notice in the same loop would be called once for each number.
  //@ mutant exponential-ln2-in-one-part: ln 2 rounded to a few bits, its rest forgotten
  //~ const float r = clamped - n * 0.693145752f;
  const float r = (clamped - n * 0.693145752f) - n * 1.42860677e-6f;
  //@ mutant exponential-short-series: the last term of the series is missing
  //~ float p = 0.f;
  float p = 1.f / 720;
  p = p * r + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  const uint32_t exponent =
      (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(round_magic)) << 23;
  //@ mutant exponential-without-power: eʳ alone, the factor 2ⁿ is missing
  //~ const float result = p;
  const float result = std::bit_cast<float>(std::bit_cast<uint32_t>(p) + exponent);
  // A NaN argument leaves p NaN but its exponent bits arbitrary, hence the last test.
  //@ mutant exponential-never-zero: far below the smallest normal number it stays above 0
  //~ return x < smallest  ? result
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
  //@ begin 01 softmax-row points=7
  //@ plan 1. The largest of the n scores (largest_of).
  //@ plan 2. Every p[j] = exponential(scale * (score - largest)); p and s may be the same array.
  //@ plan 3. The sum of all p[j]. A plain loop will do; ours adds whole vectors (Vec, load, sum).
  //@ plan 4. Divide every p[j] by the sum.
  //@ hint 1 A float overflows from e^88.7 on, and scores can be 1000. Which number may be taken off
  //@ hint 1 all scores without changing a single weight, and what is the largest exponential then?
  //@ hint 2 README, "The mathematics": the first formula, and the sentence below it. `dot` in
  //@ hint 2 src/tensor/simd.h sums whole vectors and then the rest, if you want to go that way.
  //@ hint 3 top = largest of the n scores
  //@ hint 3 total = 0
  //@ hint 3 for j from 0 to n - 1:
  //@ hint 3   p[j] = exponential(scale times (s[j] - top))
  //@ hint 3   add p[j] to total
  //@ hint 3 for j from 0 to n - 1:
  //@ hint 3   divide p[j] by total
  //@ notice Scores near 30000 work as well as scores near 0: only differences of scores count. The
  //@ notice sum is never below 1, since the largest score adds e^0 to it.
  //@ mutant softmax-no-max: the largest score is not subtracted, so large scores overflow
  //~ const T top = 0;
  const T top = largest_of(s, n);
  //@ mutant softmax-no-scale: the scores are not scaled
  //~ for (int j = 0; j < n; ++j) p[j] = exponential(s[j] - top);
  //@ mutant softmax-scale-before-max: the unscaled maximum is taken off the scaled score
  //~ for (int j = 0; j < n; ++j) p[j] = exponential(scale * s[j] - top);
  for (int j = 0; j < n; ++j) p[j] = exponential(scale * (s[j] - top));
  Vec<T> sums{};
  int j = 0;
  for (; j + lanes<T> <= n; j += lanes<T>) sums += load(p + j);
  //@ mutant softmax-drops-tail: what does not fill a whole vector is not summed
  if (j < n) sums += load_part(p + j, n - j);
  const T inverse = T(1) / sum<T>(sums);
  //@ mutant softmax-not-normalised: the weights do not sum to 1
  for (j = 0; j < n; ++j) p[j] *= inverse;
  //@ end
}

// The gradient of the scores from the gradient of the probabilities (Jacobian diag(p) - p pᵀ):
// ds_j = scale · p_j (dp_j - Σ_i p_i dp_i). ds may be dp.
template <class T>
inline void softmax_row_backward(T* ds, const T* dp, const T* p, int n, T scale) {
  //@ begin 01 softmax-backward points=6
  //@ plan 1. The mean of dp under the weights p: the sum of all p[i] * dp[i], complete before any
  //@ plan    ds is written, since ds may be dp.
  //@ plan 2. Every ds[j] by the formula above, with the factor `scale`.
  //@ hint 1 The weights sum to 1 whatever the scores are. So what must ds be, if all dp are equal?
  //@ hint 2 README, "The mathematics": the third formula, without building a matrix. `dot` in
  //@ hint 2 src/tensor/simd.h sums products. This softmax took scale * s, hence the factor.
  //@ hint 3 mean = the sum over all i of p[i] times dp[i]
  //@ hint 3 for j from 0 to n - 1:
  //@ hint 3   ds[j] = scale times p[j] times (dp[j] - mean)
  //@ notice An n × n Jacobian was applied with 2n products: each of its columns is known from p[j].
  //@ notice A key with weight 0 gets gradient 0, whatever it would be worth.
  //@ mutant backward-diagonal-only: the Jacobian without its - p pᵀ
  //~ const T mean = 0;
  //@ mutant backward-plain-mean: every key counts the same in the mean, whatever its weight
  //~ T mean = 0;
  //~ for (int j = 0; j < n; ++j) mean += dp[j] / T(n);
  const T mean = dot(p, dp, n);
  // Only now may ds be written: where it is dp, the mean had to see all of dp first.
  //@ mutant backward-no-scale: the scale of the scores is forgotten
  //~ for (int j = 0; j < n; ++j) ds[j] = p[j] * (dp[j] - mean);
  //@ mutant backward-scale-inside: the mean is not scaled
  //~ for (int j = 0; j < n; ++j) ds[j] = p[j] * (scale * dp[j] - mean);
  //@ mutant backward-plus: the mean is added where it should be taken off
  //~ for (int j = 0; j < n; ++j) ds[j] = scale * p[j] * (dp[j] + mean);
  //@ mutant backward-reads-its-output: the mean is taken again after ds has overwritten dp
  //~ for (int j = 0; j < n; ++j) ds[j] = scale * p[j] * (dp[j] - dot(p, dp, n));
  for (int j = 0; j < n; ++j) ds[j] = scale * p[j] * (dp[j] - mean);
  //@ end
}

}  // namespace focus
