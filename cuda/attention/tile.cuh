// Small matrix products from shared memory into registers: the core of the fused kernels.
//
// THREADS threads stand in a grid of TY × TX; a thread owns R × C numbers of the result. Rows lie
// TY apart. Columns of a product with Bᵀ lie TX apart; columns of a product with B come in vectors
// of V neighbours, V·TX apart, so that a thread reads whole vectors.
// Factors lie in shared memory in rows of `stride` floats, a multiple of 4 but not of 32: then
// threads that read neighbouring rows 16 bytes at a time use different banks.
#pragma once

#include "cuda/attention/attention.h"
#include "cuda/simt/simt.h"

namespace focus::gpu {

// A thread's row and column in the grid. Bit 0 of the lane counts columns and bit 1 rows: a 16-byte
// load that depends on the row only (or the column only) is then the same in each pair of
// neighbouring lanes (or lanes two apart), and the hardware serves half a warp at once instead of a
// quarter. A row of the grid lies in one warp.
template <int TX>
struct ThreadPosition {
  static_assert(TX == 8 || TX == 16);
  static constexpr int rows_per_warp = 32 / TX;
  int x, y, row_in_warp;

  __device__ ThreadPosition() {
    const int lane = int(threadIdx.x) % 32;
    x = (lane & 1) | ((lane >> 2) << 1 & (TX - 1));
    row_in_warp = (lane >> 1 & 1) | (TX == 8 ? lane >> 4 << 1 : 0);
    y = int(threadIdx.x) / 32 * rows_per_warp + row_in_warp;
  }
  template <class F>
  static __device__ float reduce_row(float value, const F& combine) {
    value = combine(value, __shfl_xor_sync(all_lanes, value, 1));
    value = combine(value, __shfl_xor_sync(all_lanes, value, 4));
    value = combine(value, __shfl_xor_sync(all_lanes, value, 8));
    if (TX == 16) value = combine(value, __shfl_xor_sync(all_lanes, value, 16));
    return value;
  }
};

struct Maximum {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};

template <int C>
inline constexpr int vector_of = C >= 4 ? 4 : C;

template <int TX, int C>
__device__ __forceinline__ int column(int x, int j) {
  constexpr int V = vector_of<C>;
  return j / V * (V * TX) + x * V + j % V;
}

template <int V>
__device__ __forceinline__ void load_vector(float* to, const float* from) {
  if constexpr (V == 4) {
    const float4 x = load4(from);
    to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
  } else if constexpr (V == 2) {
    const float2 x = *reinterpret_cast<const float2*>(from);
    to[0] = x.x, to[1] = x.y;
  } else {
    to[0] = *from;
  }
}

// c += A Bᵀ. a: at the thread's first row, its next row a_step floats on; b likewise.
template <int K, int R, int C>
__device__ __forceinline__ void add_abt(float (&c)[R][C], const float* a, int a_step,
                                        const float* b, int b_step) {
#pragma unroll 4
  for (int x = 0; x < K; x += 4) {
    float u[R][4], v[C][4];
#pragma unroll
    for (int i = 0; i < R; ++i) load_vector<4>(u[i], a + i * a_step + x);
#pragma unroll
    for (int j = 0; j < C; ++j) load_vector<4>(v[j], b + j * b_step + x);
#pragma unroll
    for (int e = 0; e < 4; ++e)
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int j = 0; j < C; ++j) c[i][j] += u[i][e] * v[j][e];
  }
}

// c += A B. a: as above, K numbers a row; b: (K,…) at the thread's first column.
template <int TX, int K, int R, int C>
__device__ __forceinline__ void add_ab(float (&c)[R][C], const float* a, int a_step, const float* b,
                                       int b_stride) {
  constexpr int V = vector_of<C>;
#pragma unroll 2
  for (int x = 0; x < K; x += 4) {
    float u[R][4];
#pragma unroll
    for (int i = 0; i < R; ++i) load_vector<4>(u[i], a + i * a_step + x);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float v[C];
#pragma unroll
      for (int j = 0; j < C; j += V) load_vector<V>(v + j, b + (x + e) * b_stride + j * TX);
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int j = 0; j < C; ++j) c[i][j] += u[i][e] * v[j];
    }
  }
}

// c += Aᵀ B. a: (K,…) at the thread's first row, whose rows come in vectors of 4 neighbours,
// 4·TY apart; b: (K,…) at the thread's first column.
template <int TX, int TY, int K, int R, int C>
__device__ __forceinline__ void add_atb(float (&c)[R][C], const float* a, int a_stride,
                                        const float* b, int b_stride) {
  constexpr int V = vector_of<C>;
#pragma unroll 4
  for (int x = 0; x < K; ++x) {
    float u[R], v[C];
#pragma unroll
    for (int i = 0; i < R; i += 4) load_vector<4>(u + i, a + x * a_stride + i * TY);
#pragma unroll
    for (int j = 0; j < C; j += V) load_vector<V>(v + j, b + x * b_stride + j * TX);
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
      for (int j = 0; j < C; ++j) c[i][j] += u[i] * v[j];
  }
}

// Starts copying rows first … first+ROWS-1 of a head to shared memory, 16 bytes at a time; rows
// beyond T and channels from D to W become 0.
template <int W, int ROWS, int THREADS>
__device__ __forceinline__ void copy_rows(float* to, int stride, const Heads& x, const float* head,
                                          int first) {
  constexpr int vectors = W / 4;
#pragma unroll
  for (int e = int(threadIdx.x); e < ROWS * vectors; e += THREADS) {
    const int row = e / vectors, channel = e % vectors * 4;
    float* at = to + row * stride + channel;
    if (first + row < x.T && channel < x.D)
      __pipeline_memcpy_async(at, head + (first + row) * x.row_stride + channel, 16);
    else
      store4(at, make_float4(0, 0, 0, 0));
  }
}

}  // namespace focus::gpu
