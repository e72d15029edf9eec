// The two products of a linear layer's backward, in float32, at the same time: the gradient of its
// input by the first half of the warps, that of its weights by the second.
//
// What bounds the products of matmul.cuh is shared memory: 5 × 2 numbers a thread need 14 turns of
// its banks for 40 multiply-adds of a warp. Half the threads with 5 × 4 numbers each need 18 for
// 80, and with 8 × 4 numbers of a weight gradient 6 for 32. Both halves make 1280 multiply-adds a
// thread at 40 tokens, and a scheduler has as many warps of one as of the other.
//
// For the same reason attention's backward makes dQ by one half and dK by the other.
#pragma once

#include "cuda/one_launch/matmul.cuh"

namespace focus::gpu::one_launch {

inline constexpr int half_of_warps = warps / 2;
template <class H>
__device__ __forceinline__ bool in_first_half() {
  return this_thread<H>() < 32 * half_of_warps;
}

// Where half the warps own the 64 columns of a result, a thread's numbers: [i][j] is at row + 8·i,
// column + j. Lanes as in FirstElement.
template <int R>
struct WideAccumulators {
  float at[R][4] = {};
};
template <class H>
struct WideFirstElement {
  int row, column;
  __device__ WideFirstElement() {
    const int lane = this_thread<H>() % 32;
    row = (lane >> 1 & 1) | (lane >> 2 & 6);
    column = this_thread<H>() / 32 % half_of_warps * 16 + 4 * ((lane & 1) | (lane >> 1 & 2));
  }
};

// c += A B with K inner numbers, a multiple of 8; a_stride: floats from row to row of A.
template <class H, int K, int R>
__device__ __forceinline__ void add_ab_wide(WideAccumulators<R>& c, const float* a, int a_stride,
                                            const float* b) {
  const WideFirstElement<H> at;
  struct Step {
    float4 u[R], v[4];
  };
  const auto load = [&](Step& to, int k) {
#pragma unroll
    for (int i = 0; i < R; ++i) to.u[i] = load4(a + (at.row + 8 * i) * a_stride + k);
#pragma unroll
    for (int e = 0; e < 4; ++e) to.v[e] = load4(b + (k + e) * row_stride + at.column);
  };
  const auto multiply = [&](const Step& x) {
#pragma unroll
    for (int e = 0; e < 4; ++e)
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) c.at[i][j] = fmaf(part(x.u[i], e), part(x.v[e], j), c.at[i][j]);
  };
  for_each_step<Step, H::ahead, K, 4>(load, multiply);
}

template <class H, int R>
__device__ __forceinline__ void write_wide(float* to, const WideAccumulators<R>& c, int length) {
  const WideFirstElement<H> at;
#pragma unroll
  for (int i = 0; i < R; ++i)
    if (at.row + 8 * i < length)
      store4(to + (at.row + 8 * i) * row_stride + at.column,
             make_float4(c.at[i][0], c.at[i][1], c.at[i][2], c.at[i][3]));
}

// Second half: to (64 × 64, dense) = dYᵀ X, summed over ROWS tokens in order. A thread owns 8 rows
// and 4 columns.
template <class H, int ROWS>
__device__ __forceinline__ void weight_gradient_wide(float* to, const float* dy, const float* x) {
  const int lane = this_thread<H>() % 32, warp = this_thread<H>() / 32 - half_of_warps;
  // Bits 0, 2 and 4 of the lane choose the columns, bits 1 and 3 the rows.
  const int out = 8 * (warp / 2 * 4 + ((lane >> 1 & 1) | (lane >> 2 & 2)));
  const int in = 4 * (warp % 2 * 8 + ((lane & 1) | (lane >> 1 & 2) | (lane >> 2 & 4)));
  struct Step {
    float4 u[2], v;
  };
  float sum[8][4] = {};
  const auto load = [&](Step& to_step, int t) {
    to_step.u[0] = load4(dy + t * row_stride + out);
    to_step.u[1] = load4(dy + t * row_stride + out + 4);
    to_step.v = load4(x + t * row_stride + in);
  };
  const auto multiply = [&](const Step& s) {
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        sum[i][j] = fmaf(part(s.u[i / 4], i % 4), part(s.v, j), sum[i][j]);
  };
  for_each_step<Step, H::ahead, ROWS, 1>(load, multiply);
#pragma unroll
  for (int i = 0; i < 8; ++i)
    store4(to + (out + i) * width + in, make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]));
}

// The same by all warps; a thread owns 4 × 4 numbers.
template <class H, int ROWS>
__device__ __forceinline__ void weight_gradient_by_all(float* to, const float* dy, const float* x) {
  const int lane = this_thread<H>() % 32, warp = this_thread<H>() / 32;
  const int out = 4 * (warp / 2 * 4 + ((lane >> 1 & 1) | (lane >> 2 & 2)));
  const int in = 4 * (warp % 2 * 8 + ((lane & 1) | (lane >> 1 & 2) | (lane >> 2 & 4)));
  float sum[4][4] = {};
#pragma unroll 4
  for (int t = 0; t < ROWS; ++t) {
    const float4 u = load4(dy + t * row_stride + out), v = load4(x + t * row_stride + in);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(part(u, i), part(v, j), sum[i][j]);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    store4(to + (out + i) * width + in, make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]));
}

}  // namespace focus::gpu::one_launch
