// Products of small matrices in shared memory: what a step mostly consists of.
//
// 256 threads own the 64 columns of a result with up to 8·R rows. A warp owns 8 columns; in it a
// thread owns 2 neighbouring columns and every eighth row: R × 2 numbers, in registers. So one
// pass over the k's loads R rows and 2 columns, 16 bytes at a time, for 2·R multiply-adds a number.
//
// Rows lie `row_stride` floats apart, 4 more than their 64 numbers: then 8 neighbouring rows lie in
// different banks.
#pragma once

#include "cuda/simt/simt.h"

namespace focus::gpu::one_launch {

inline constexpr int width = 64;  // channels of a token, of the MLP, of the head
inline constexpr int threads = 256, warps = threads / 32;
inline constexpr int row_stride = width + 4;

// A thread's first row and first column. Bits 0 and 2 of the lane choose the column, the others the
// row: lanes that read the same 16 bytes are then next to each other or two apart, and the
// hardware serves half a warp at once instead of a quarter.
struct Place {
  int row, column;
  __device__ Place() {
    const int lane = int(threadIdx.x) % 32;
    row = (lane >> 1 & 1) | (lane >> 2 & 6);
    column = int(threadIdx.x) / 32 * 8 + 2 * ((lane & 1) | (lane >> 1 & 2));
  }
};

// A thread's numbers of a result: [i][j] is at row + 8·i, column + j.
template <int R>
struct Tile {
  float at[R][2] = {};
};

__device__ __forceinline__ void add_dot(float& sum, float4 a, float4 b) {
  sum = fmaf(a.x, b.x, sum);
  sum = fmaf(a.y, b.y, sum);
  sum = fmaf(a.z, b.z, sum);
  sum = fmaf(a.w, b.w, sum);
}

// c += A Bᵀ for N matrices B of 64 channels: a: the thread's first row of A, b[n]: the row of B
// that is its first column.
template <int R, int N>
__device__ __forceinline__ void add_abt(Tile<R> (&c)[N], const float* a,
                                        const float* const (&b)[N]) {
#pragma unroll 4
  for (int k = 0; k < width; k += 4) {
    float4 u[R];
#pragma unroll
    for (int i = 0; i < R; ++i) u[i] = load4(a + 8 * i * row_stride + k);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float4 v = load4(b[n] + j * row_stride + k);
#pragma unroll
        for (int i = 0; i < R; ++i) add_dot(c[n].at[i][j], u[i], v);
      }
  }
}

// c += A B with K inner numbers, a multiple of 4: a: the thread's first row of A, b: its first
// column of B's first row.
template <int K, int R>
__device__ __forceinline__ void add_ab(Tile<R>& c, const float* a, int a_stride, const float* b) {
#pragma unroll 4
  for (int k = 0; k < K; k += 4) {
    float4 u[R];
#pragma unroll
    for (int i = 0; i < R; ++i) u[i] = load4(a + 8 * i * a_stride + k);
    float2 v[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) v[e] = load2(b + (k + e) * row_stride);
#pragma unroll
    for (int i = 0; i < R; ++i) {
      float* sum = c.at[i];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const auto channel = [&](int e) { return j == 0 ? v[e].x : v[e].y; };
        sum[j] = fmaf(u[i].x, channel(0), sum[j]);
        sum[j] = fmaf(u[i].y, channel(1), sum[j]);
        sum[j] = fmaf(u[i].z, channel(2), sum[j]);
        sum[j] = fmaf(u[i].w, channel(3), sum[j]);
      }
    }
  }
}

// The weight gradients of N linear layers with the same input: to[n] (64 × 64, dense) = dY[n]ᵀ X,
// summed over `rows` tokens in order. A thread owns 4 × 4 numbers of each.
template <int ROWS, int N>
__device__ __forceinline__ void weight_gradients(float* const (&to)[N], const float* const (&dy)[N],
                                                 const float* x) {
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  // Bits 0, 2 and 4 of the lane choose the columns, bits 1 and 3 the rows; see Place.
  const int out = 4 * (warp / 2 * 4 + ((lane >> 1 & 1) | (lane >> 2 & 2)));
  const int in = 4 * (warp % 2 * 8 + ((lane & 1) | (lane >> 1 & 2) | (lane >> 2 & 4)));
  float sum[N][4][4] = {};
#pragma unroll 4
  for (int t = 0; t < ROWS; ++t) {
    const float4 v = load4(x + t * row_stride + in);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const float4 u4 = load4(dy[n] + t * row_stride + out);
      const float u[4] = {u4.x, u4.y, u4.z, u4.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sum[n][i][0] = fmaf(u[i], v.x, sum[n][i][0]);
        sum[n][i][1] = fmaf(u[i], v.y, sum[n][i][1]);
        sum[n][i][2] = fmaf(u[i], v.z, sum[n][i][2]);
        sum[n][i][3] = fmaf(u[i], v.w, sum[n][i][3]);
      }
    }
  }
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      store4(to[n] + (out + i) * width + in,
             make_float4(sum[n][i][0], sum[n][i][1], sum[n][i][2], sum[n][i][3]));
}

// The bias gradient of a linear layer: to[c] = the sum of column c over ROWS tokens. A warp owns 8
// columns, four lanes share one.
template <int ROWS>
__device__ __forceinline__ void bias_gradient(float* to, const float* dy) {
  static_assert(ROWS % 4 == 0);
  const int lane = int(threadIdx.x) % 32;
  const int column = int(threadIdx.x) / 32 * 8 + lane % 8, first = lane / 8 * (ROWS / 4);
  float sum = 0;
#pragma unroll
  for (int t = 0; t < ROWS / 4; ++t) sum += dy[(first + t) * row_stride + column];
  sum += __shfl_xor_sync(all_lanes, sum, 8);
  sum += __shfl_xor_sync(all_lanes, sum, 16);
  if (lane < 8) to[column] = sum;
}

}  // namespace focus::gpu::one_launch
