// Products of small matrices in shared memory, where a step spends most of its time. The float32
// ones are here; cuda/fast/one_launch/mma.cuh has those on tensor cores.
//
// 256 threads own the 64 columns of a result with up to 8·R rows. A warp owns 8 columns; in it a
// thread owns 2 neighbouring columns and every eighth row: R × 2 numbers, in registers. So one
// pass over the k's loads R rows and 2 columns, 16 bytes at a time, for 2·R multiply-adds a number.
//
// Rows lie `row_stride` floats apart, 4 more than their 64 numbers: then 8 neighbouring rows lie in
// different banks.
#pragma once

#include "cuda/fast/one_launch/mma.cuh"
#include "cuda/simt/simt.h"

namespace focus::gpu::one_launch {

inline constexpr int width = 64;  // channels of a token, of the MLP, of the head
inline constexpr int threads = 256, warps = threads / 32;
inline constexpr int row_stride = width + 4;

// How a kernel multiplies. AHEAD: the loads of a step of a product stand before the multiply-adds
// of the step before it, in kernels that have few warps to hide the latency of loads and registers
// to spare.
template <Precision P, bool AHEAD>
struct How {
  static constexpr Precision precision = P;
  static constexpr bool ahead = AHEAD, tensor_cores = P != Precision::fp32;
  // In float32 with few registers: see this_thread().
  static constexpr bool anew = !tensor_cores && !ahead;
};

// threadIdx.x; with H::anew unknown to the compiler, so that what follows from it is computed where
// it is needed. Kept over the whole kernel, it spilled: 620 loads a warp and step, of 512 threads
// whose 100 KB the 28 KB that shared memory leaves of the first-level cache did not hold. With 12
// loads ten runs take 10 % less time. Where spills are few it costs more than it gives.
template <class H>
__device__ __forceinline__ int this_thread() {
#ifdef __CUDACC__
  if (H::anew) {
    int result;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(result));
    return result;
  }
#endif
  return int(threadIdx.x);
}

// A thread's first row and first column. In float32 bits 0 and 2 of the lane choose the column, the
// others the row: lanes that read the same 16 bytes are then next to each other or two apart, and
// the hardware serves half a warp at once instead of a quarter. On tensor cores as mma.cuh says.
template <class H>
struct FirstElement {
  int row, column;
  __device__ FirstElement() {
    const int lane = this_thread<H>() % 32, first = this_thread<H>() / 32 * 8;
    if (H::tensor_cores) {
      row = lane / 4, column = first + 2 * (lane % 4);
    } else {
      row = (lane >> 1 & 1) | (lane >> 2 & 6);
      column = first + 2 * ((lane & 1) | (lane >> 1 & 2));
    }
  }
};

// A thread's numbers of a result: [i][j] is at row + 8·i, column + j.
template <int R>
struct Accumulators {
  float at[R][2] = {};
};

// The tiles of a warp on tensor cores, from below each other (N results) and back. The last one may
// have 8 rows only.
template <int R>
inline constexpr int tiles_below = (R + 1) / 2;
template <int R, int N>
__device__ __forceinline__ void to_tiles(float (&to)[tiles_below<R>][N][4],
                                         const Accumulators<R> (&c)[N]) {
#pragma unroll
  for (int m = 0; m < tiles_below<R>; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        to[m][n][e] = 2 * m + e / 2 < R ? c[n].at[(2 * m + e / 2) % R][e % 2] : 0.f;
}
template <int R, int N>
__device__ __forceinline__ void from_tiles(Accumulators<R> (&c)[N],
                                           const float (&from)[tiles_below<R>][N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
      for (int e = 0; e < 2; ++e) c[n].at[i][e] = from[i / 2][n][i % 2 * 2 + e];
}
// A lane's numbers of A for tile m and inner numbers 8·n …, which run along its rows.
template <class H, int R>
__device__ __forceinline__ RawA along_rows(const float* a, int stride, int m, int n) {
  const int lane = this_thread<H>() % 32;
  const float* p = a + (16 * m + lane / 4) * stride + 8 * n + lane % 4;
  const bool both = 2 * m + 1 < R;
  return {{p[0], both ? p[8 * stride] : 0.f, p[4], both ? p[8 * stride + 4] : 0.f}};
}

__device__ __forceinline__ float part(float4 x, int e) {
  return e == 0 ? x.x : e == 1 ? x.y : e == 2 ? x.z : x.w;
}

// K inner numbers, SIZE in a step: all loads of a step stand together before its multiply-adds, and
// AHEAD those of the next step too.
template <class Step, bool AHEAD, int K, int SIZE, class Load, class Multiply>
__device__ __forceinline__ void for_each_step(const Load& load, const Multiply& multiply) {
  static_assert(K % (2 * SIZE) == 0);
  Step now, next;
  if (!AHEAD) {
#pragma unroll 2
    for (int k = 0; k < K; k += SIZE) {
      load(now, k);
      multiply(now);
    }
    return;
  }
  load(now, 0);
#pragma unroll 1
  for (int k = 0; k < K; k += 2 * SIZE) {
    load(next, k + SIZE);
    multiply(now);
    load(now, (k + 2 * SIZE) % K);
    multiply(next);
  }
}

// c += A Bᵀ for N matrices B of 64 channels. Several of them leave no registers to load ahead.
template <class H, Numbers OF_A = Numbers::rounded, Numbers OF_B = Numbers::weights, int R, int N>
__device__ __forceinline__ void add_abt(Accumulators<R> (&c)[N], const float* a,
                                        const float* const (&b)[N]) {
  const FirstElement<H> at;
  if constexpr (H::tensor_cores) {
    const int lane = this_thread<H>() % 32,
              place = (at.column / 8 * 8 + lane / 4) * row_stride + lane % 4;
    float sums[tiles_below<R>][N][4];
    to_tiles<R>(sums, c);
    add_tiles<H::precision, OF_A, OF_B, width / 8, H::ahead && N == 1>(
        sums, [&](int m, int n) { return along_rows<H, R>(a, row_stride, m, n); },
        [&](int j, int n) {
          const float* p = b[j] + place + 8 * n;
          return RawB{{p[0], p[4]}};
        });
    from_tiles<R>(c, sums);
    return;
  }
  struct Step {
    float4 u[R], v[N][2];
  };
  const auto load = [&](Step& to, int k) {
#pragma unroll
    for (int i = 0; i < R; ++i) to.u[i] = load4(a + (at.row + 8 * i) * row_stride + k);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int j = 0; j < 2; ++j) to.v[n][j] = load4(b[n] + (at.column + j) * row_stride + k);
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
  for_each_step<Step, N == 1 && H::ahead, width, 4>(load, multiply);
}

// c += A B with K inner numbers, a multiple of 8; a_stride: floats from row to row of A.
template <class H, int K, Numbers OF_A, Numbers OF_B, int R>
__device__ __forceinline__ void add_ab(Accumulators<R>& c, const float* a, int a_stride,
                                       const float* b) {
  const FirstElement<H> at;
  if constexpr (H::tensor_cores) {
    const int lane = this_thread<H>() % 32,
              place = lane % 4 * row_stride + at.column / 8 * 8 + lane / 4;
    Accumulators<R> one[1] = {c};
    float sums[tiles_below<R>][1][4];
    to_tiles<R>(sums, one);
    add_tiles<H::precision, OF_A, OF_B, K / 8, H::ahead>(
        sums, [&](int m, int n) { return along_rows<H, R>(a, a_stride, m, n); },
        [&](int, int n) {
          const float* p = b + place + 8 * n * row_stride;
          return RawB{{p[0], p[4 * row_stride]}};
        });
    from_tiles<R>(one, sums);
    c = one[0];
    return;
  }
  struct Step {
    float4 u[R];
    float2 v[4];
  };
  const auto load = [&](Step& to, int k) {
#pragma unroll
    for (int i = 0; i < R; ++i) to.u[i] = load4(a + (at.row + 8 * i) * a_stride + k);
#pragma unroll
    for (int e = 0; e < 4; ++e) to.v[e] = load2(b + (k + e) * row_stride + at.column);
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
  for_each_step<Step, H::ahead, K, 4>(load, multiply);
}

// The weight gradients of N linear layers with the same input: to[n] (64 × 64, dense) = dY[n]ᵀ X,
// summed over ROWS tokens. In float32 a thread owns 4 × 4 numbers of each, on tensor cores a warp
// 2 × 2 tiles.
template <class H, int ROWS, Numbers OF_X, int N>
__device__ __forceinline__ void weight_gradients(float* const (&to)[N], const float* const (&dy)[N],
                                                 const float* x) {
  const int lane = this_thread<H>() % 32, warp = this_thread<H>() / 32;
  if constexpr (H::tensor_cores) {
    const int g = lane / 4, t = lane % 4, row = warp / 4 * 32, column = warp % 4 * 16;
    float sums[2 * N][2][4] = {};
    add_tiles<H::precision, Numbers::rounded, OF_X, ROWS / 8, H::ahead && N == 1>(
        sums,
        [&](int m, int n) {
          const float* p = dy[m / 2] + (8 * n + 2 * t) * row_stride + row + 16 * (m % 2) + g;
          return RawA{{p[0], p[8], p[row_stride], p[row_stride + 8]}};
        },
        [&](int j, int n) {
          const float* p = x + (8 * n + 2 * t) * row_stride + column + 8 * j + g;
          return RawB{{p[0], p[row_stride]}};
        });
#pragma unroll
    for (int m = 0; m < 2 * N; ++m)
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          store2(to[m / 2] + (row + 16 * (m % 2) + 8 * i + g) * width + column + 8 * j + 2 * t,
                 make_float2(sums[m][j][2 * i], sums[m][j][2 * i + 1]));
    return;
  }
}

// The bias gradient of a linear layer: to[c] = the sum of column c over ROWS tokens. By all warps
// on tensor cores, else by either half. Lanes that share a column have some tokens each.
template <class H, int ROWS>
__device__ __forceinline__ void bias_gradient(float* to, const float* dy) {
  constexpr int by = H::tensor_cores ? warps : warps / 2;
  constexpr int columns = width / by, sharing = 32 / columns;
  static_assert(ROWS % sharing == 0);
  const int lane = this_thread<H>() % 32;
  const int column = this_thread<H>() / 32 % by * columns + lane % columns;
  const float* from = dy + lane / columns * (ROWS / sharing) * row_stride + column;
  float sum = 0;
#pragma unroll
  for (int t = 0; t < ROWS / sharing; ++t) sum += from[t * row_stride];
#pragma unroll
  for (int lanes = columns; lanes < 32; lanes *= 2) sum += __shfl_xor_sync(all_lanes, sum, lanes);
  if (lane < columns) to[column] = sum;
}

}  // namespace focus::gpu::one_launch
