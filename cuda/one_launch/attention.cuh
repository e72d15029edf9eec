// Attention of one sequence: scores, the choice of keys, softmax, and their backward. At up to 48
// tokens the dense products with a matrix of weights that holds zeros cost less than gathering the
// kept ones, so every pattern takes the same products and differs only in which weights are zero.
//
// A matrix of scores has rows of 8·R + 4 floats, zeros beyond the length where a sum runs over
// them.
#pragma once

#include "cuda/one_launch/dropout.cuh"
#include "cuda/one_launch/layer_norm.cuh"

namespace focus::gpu::one_launch {

template <int R>
inline constexpr int score_stride = 8 * R + 4;
template <int R>
inline constexpr int scores_size = 8 * R* score_stride<R>;

// s = A Bᵀ for the tokens of A and B, by the warps whose columns are tokens.
template <class H, int R, Numbers OF_BOTH>
__device__ __forceinline__ void token_products(float* s, const float* a, const float* b,
                                               int length) {
  const FirstElement<H> at;
  if (at.column / 8 * 8 >= length) return;
  Accumulators<R> c[1] = {};
  add_abt<H, OF_BOTH, OF_BOTH>(c, a, {b});
#pragma unroll
  for (int i = 0; i < R; ++i)
    store2(s + (at.row + 8 * i) * score_stride<R> + at.column,
           make_float2(c[0].at[i][0], c[0].at[i][1]));
}

// The scores that choose keys are as exact as tensor cores allow, so that near-ties stay what they
// are: at tf32 and bf16 they are computed as at 3xtf32.
template <class H>
using ForChoice =
    How<H::precision == Precision::fp32 ? Precision::fp32 : Precision::tf32x3, H::ahead>;

// What one warp knows of its rows of scores, every eighth from its own number on. A lane holds the
// columns lane and lane + 32.
template <int R, class H>
struct ScoreRows {
  int lane = this_thread<H>() % 32, warp = this_thread<H>() / 32;
  float s[R][2];
  unsigned long long keys[R];  // bit j: key j is kept

  __device__ int row(int i) const { return warp + 8 * i; }
  // Of the row's keys, the 32 that this half's bits stand for.
  __device__ unsigned half_of_keys(int i, int half) const {
    return unsigned(keys[i] >> (32 * half));
  }
  __device__ bool kept(int i, int half) const { return half_of_keys(i, half) >> lane & 1; }
  // The first bit of dropout's mask for a row, from the sequence's.
  __device__ unsigned first_bit(const Plan& p, int of_sequence, int i) const {
    return unsigned(of_sequence +
                    (p.nnz_a_row > 0 ? row(i) * p.nnz_a_row : __ldg(p.entry_begin + row(i))));
  }
  // The bit of dropout's mask for one of the lane's kept keys: the row's first, and as many on as
  // the row keeps keys before it.
  __device__ unsigned bit(const Plan& p, const uint8_t* mask, unsigned first, int i,
                          int half) const {
    const unsigned before = half_of_keys(i, half) & ((1u << lane) - 1);
    const unsigned e =
        p.pattern == Pattern::full
            ? first + unsigned(lane + 32 * half)
            : first + unsigned(__popc(before) + (half == 1 ? __popc(half_of_keys(i, 0)) : 0));
    return unsigned(mask[e / 8]) >> e % 8;
  }
  // Dropout's, of a weight that is kept, else 1. mask: nullptr without dropout.
  __device__ float factor(const Plan& p, const uint8_t* mask, unsigned first, int i,
                          int half) const {
    return mask && kept(i, half) ? p.attention_dropout.factor(bit(p, mask, first, i, half)) : 1.f;
  }
};

// The largest of all lanes' numbers.
__device__ inline unsigned largest_of_lanes(unsigned x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const unsigned other = __shfl_xor_sync(all_lanes, x, lanes);
    x = x > other ? x : other;
  }
  return x;
#else
  return __reduce_max_sync(all_lanes, x);
#endif
}

// Larger numbers for larger floats; -0 is 0.
__device__ inline unsigned ordered(float x) {
  const unsigned bits = __float_as_uint(x + 0.f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// The k largest scores of each row (with sign -1 the smallest); of equal ones the lower index. A
// row with a NaN gets its first k keys.
template <int R, class H>
__device__ __forceinline__ void choose_keys(ScoreRows<R, H>& rows, int length, int k, float sign) {
  unsigned u[R][2], chosen[R][2] = {};
  bool has_nan[R];
#pragma unroll
  for (int i = 0; i < R; ++i) {
    has_nan[i] = false;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float s = sign * rows.s[i][h];
      const bool in = rows.lane + 32 * h < length;
      u[i][h] = in ? ordered(s) : 0;  // below every score
      has_nan[i] |= in && s != s;
    }
    has_nan[i] = __any_sync(all_lanes, has_nan[i]);
  }
  for (int n = 0; n < k; ++n)
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const unsigned best = largest_of_lanes(u[i][0] > u[i][1] ? u[i][0] : u[i][1]);
      const unsigned low = __ballot_sync(all_lanes, u[i][0] == best);
      const unsigned high = __ballot_sync(all_lanes, u[i][1] == best);
      const int lane = __ffs(int(low ? low : high)) - 1;
      chosen[i][0] |= low ? 1u << lane : 0u;
      chosen[i][1] |= low ? 0u : 1u << lane;
      if (rows.lane == lane && low) u[i][0] = 0;
      if (rows.lane == lane && !low) u[i][1] = 0;
    }
#pragma unroll
  for (int i = 0; i < R; ++i)
    rows.keys[i] = has_nan[i] ? (1ull << k) - 1
                              : chosen[i][0] | static_cast<unsigned long long>(chosen[i][1]) << 32;
}

// From scores to weights after dropout, in place; for the backward the weights before dropout and
// the kept keys go to `kept`, if that is not nullptr. mask: nullptr without dropout; its bit
// first_bit is the sequence's first.
template <int R, class H = How<Precision::fp32, true>>
__device__ __forceinline__ void scores_to_weights(const Plan& p, float* s, float* kept,
                                                  const uint8_t* mask, int first_bit) {
  ScoreRows<R, H> rows;
  unsigned first[R];
  // First all loads from device memory.
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const bool in = rows.row(i) < p.length;
    rows.keys[i] = !in               ? 0
                   : p.nnz_a_row > 0 ? ~0ull >> (64 - p.length)
                                     : __ldg(p.positional_keys + rows.row(i));
    first[i] = in ? rows.first_bit(p, first_bit, i) : 0;
  }
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int j = rows.lane + 32 * h;
      const bool in = rows.row(i) < p.length && j < p.length;
      rows.s[i][h] = in ? s[rows.row(i) * score_stride<R> + j] : 0.f;
    }
  if (p.pattern == Pattern::topk || p.pattern == Pattern::bottomk)
    choose_keys(rows, p.length, p.k, p.pattern == Pattern::topk ? 1.f : -1.f);

  // Lane by lane for all rows, whose chains of shuffles are then under way together.
  float top[R], total[R];
#pragma unroll
  for (int i = 0; i < R; ++i) {
    top[i] = -INFINITY;
#pragma unroll
    for (int h = 0; h < 2; ++h)
      if (rows.kept(i, h)) top[i] = fmaxf(top[i], rows.s[i][h]);
  }
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2)
#pragma unroll
    for (int i = 0; i < R; ++i) top[i] = fmaxf(top[i], __shfl_xor_sync(all_lanes, top[i], lanes));
  float factor[R][2];
#pragma unroll
  for (int i = 0; i < R; ++i) {
    total[i] = 0;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      factor[i][h] = rows.factor(p, mask, first[i], i, h);
      const float e = fast_exp2((rows.s[i][h] - top[i]) * (p.score_scale * log2_e));
      rows.s[i][h] = rows.kept(i, h) ? e : 0.f;
      total[i] += rows.s[i][h];
    }
  }
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2)
#pragma unroll
    for (int i = 0; i < R; ++i) total[i] += __shfl_xor_sync(all_lanes, total[i], lanes);
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int row = rows.row(i);
    if (row >= p.length) continue;
    const float inverse = 1 / total[i];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int j = rows.lane + 32 * h;
      if (j >= 8 * R) continue;
      const float weight = inverse * rows.s[i][h];
      if (kept && j < p.length) kept[p.kept_layout.p + row * p.length + j] = weight;
      s[row * score_stride<R> + j] = j < p.length ? factor[i][h] * weight : 0.f;
    }
    if (kept && rows.lane == 0)
      reinterpret_cast<unsigned long long*>(kept + p.kept_layout.keys)[row] = rows.keys[i];
  }
}

// dp: the gradient of the weights after dropout. Writes dS over it, dSᵀ, and the transposed weights
// after dropout: what the three products of the backward read along rows. kept_weights, kept_keys:
// as scores_to_weights kept them, by now in shared memory.
template <int R, class H = How<Precision::fp32, true>>
__device__ __forceinline__ void weights_backward(const Plan& p, float* dp, float* ds_transposed,
                                                 float* weights_transposed,
                                                 const float* kept_weights,
                                                 const unsigned long long* kept_keys,
                                                 const uint8_t* mask, int first_bit) {
  ScoreRows<R, H> rows;
  unsigned first[R];
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int row = rows.row(i);
    const bool in = row < p.length;
    rows.keys[i] = in ? kept_keys[row] : 0;
    first[i] = in ? rows.first_bit(p, first_bit, i) : 0;
  }
  // All loads before the first store.
  float weights[R][2], factors[R][2];
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = rows.row(i), j = rows.lane + 32 * h;
      const bool in = rows.kept(i, h);
      weights[i][h] = in ? kept_weights[row * p.length + j] : 0.f;
      factors[i][h] = rows.factor(p, mask, first[i], i, h);
      rows.s[i][h] = in ? factors[i][h] * dp[row * score_stride<R> + j] : 0.f;
    }
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int row = rows.row(i);
    const float *weight = weights[i], *d = rows.s[i], *factor = factors[i];
    //@ gap 16 scores-gradient
    float mean = weight[0] * d[0] + weight[1] * d[1];
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) mean += __shfl_xor_sync(all_lanes, mean, lanes);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int j = rows.lane + 32 * h;
      if (j >= 8 * R) continue;
      const float ds = p.score_scale * weight[h] * (d[h] - mean);
      dp[row * score_stride<R> + j] = ds;
      ds_transposed[j * score_stride<R> + row] = ds;
      weights_transposed[j * score_stride<R> + row] = factor[h] * weight[h];
    }
    //@ end
  }
}

}  // namespace focus::gpu::one_launch
