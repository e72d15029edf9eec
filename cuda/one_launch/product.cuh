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

__device__ __forceinline__ float part(float4 x, int e) {
  return e == 0 ? x.x : e == 1 ? x.y : e == 2 ? x.z : x.w;
}

// c += A Bᵀ for N matrices B of 64 channels: a: the thread's first row of A, b[n]: the row of B
// that is its first column. All loads of a step stand together before its multiply-adds. AHEAD: for
// one matrix those of the next step too, in kernels that have few warps to hide the latency of
// loads and registers to spare.
template <int R, int N, bool AHEAD>
__device__ __forceinline__ void add_abt(Tile<R> (&c)[N], const float* a,
                                        const float* const (&b)[N]) {
  struct Step {
    float4 u[R], v[N][2];
  };
  const auto load = [&](Step& to, int k) {
#pragma unroll
    for (int i = 0; i < R; ++i) to.u[i] = load4(a + 8 * i * row_stride + k);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int j = 0; j < 2; ++j) to.v[n][j] = load4(b[n] + j * row_stride + k);
  };
  const auto multiply = [&](const Step& x) {
#pragma unroll
    for (int e = 0; e < 4; ++e)
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
          for (int i = 0; i < R; ++i)
            c[n].at[i][j] = fmaf(part(x.u[i], e), part(x.v[n][j], e), c[n].at[i][j]);
  };
  Step now, next;
  if (N == 1 && AHEAD) {
    load(now, 0);
#pragma unroll 1
    for (int k = 0; k < width; k += 8) {
      load(next, k + 4);
      multiply(now);
      load(now, (k + 8) % width);
      multiply(next);
    }
  } else {
#pragma unroll 2
    for (int k = 0; k < width; k += 4) {
      load(now, k);
      multiply(now);
    }
  }
}

// c += A B with K inner numbers, a multiple of 8: a: the thread's first row of A, b: its first
// column of B's first row.
template <int K, bool AHEAD, int R>
__device__ __forceinline__ void add_ab(Tile<R>& c, const float* a, int a_stride, const float* b) {
  static_assert(K % 8 == 0);
  struct Step {
    float4 u[R];
    float2 v[4];
  };
  const auto load = [&](Step& to, int k) {
#pragma unroll
    for (int i = 0; i < R; ++i) to.u[i] = load4(a + 8 * i * a_stride + k);
#pragma unroll
    for (int e = 0; e < 4; ++e) to.v[e] = load2(b + (k + e) * row_stride);
  };
  const auto multiply = [&](const Step& x) {
#pragma unroll
    for (int e = 0; e < 4; ++e)
#pragma unroll
      for (int i = 0; i < R; ++i) {
        c.at[i][0] = fmaf(part(x.u[i], e), x.v[e].x, c.at[i][0]);
        c.at[i][1] = fmaf(part(x.u[i], e), x.v[e].y, c.at[i][1]);
      }
  };
  Step now, next;
  if (!AHEAD) {
#pragma unroll 2
    for (int k = 0; k < K; k += 4) {
      load(now, k);
      multiply(now);
    }
    return;
  }
  load(now, 0);
#pragma unroll 1
  for (int k = 0; k < K; k += 8) {
    load(next, k + 4);
    multiply(now);
    load(now, (k + 8) % K);
    multiply(next);
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
