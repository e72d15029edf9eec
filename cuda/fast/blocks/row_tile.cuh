// The parts of a transformer block's fused kernels: a thread block of 256 threads takes 64 rows
// (tokens) of 64 channels through several operations without leaving the multiprocessor.
//
// Tiles of 64 × 64 numbers lie in shared memory; a product of two goes into registers, 4 × 4
// numbers a thread (cuda/attention/tile.cuh). A thread's rows are y, y + 16, …; its columns are
// x, x + 16, … after a product with Wᵀ, and 4x … 4x + 3 after one with W. A row lies in 16 lanes of
// one warp: a sum over its channels needs shuffles only, and what a warp leaves of its rows in
// shared memory it can multiply by a weight without waiting for the other warps.
#pragma once

#include "cuda/attention/tile.cuh"
#include "cuda/ops/ops.h"

namespace focus::gpu::rows {

constexpr int side = 64, TX = 16, TY = 16, threads = TX * TY, R = side / TY, C = side / TX;
constexpr int pitch = side + 4, tile_floats = side * pitch;
constexpr int part_floats = side * side + side;  // a weight's gradient and its bias's
using Fragment = float[R][C];

// The tile of a block, of which each run has tiles_of_run.
struct RowTile {
  int run, first, M;  // its first row and all rows, in the run
  size_t row;         // its first row among those of all runs
  ThreadPosition<TX> at;
  size_t own_row, own;  // the thread's first row, and where it begins
  int left;             // rows from there on

  __device__ explicit RowTile(int rows_of_run) : M(rows_of_run) {
    const int tiles = (M + side - 1) / side;
    run = int(blockIdx.x) / tiles, first = int(blockIdx.x) % tiles * side;
    row = size_t(run) * size_t(M) + size_t(first);
    own_row = row + size_t(at.y), own = own_row * side, left = M - first - at.y;
  }
  // The thread's row i: in the tile, whether it exists, among all, and where it begins.
  __device__ int y(int i) const { return at.y + TY * i; }
  __device__ bool has(int i) const { return TY * i < left; }
  __device__ size_t row_of(int i) const { return own_row + size_t(TY * i); }
  __device__ size_t offset(int i) const { return own + size_t(TY * side * i); }
};

// The products of cuda/attention/tile.cuh, of 64 numbers, with the factors of the next step on
// their way while one step multiplies; the last step loads the first's once more. Predicted: 10 %
// of the fused kernels' time; measured: 1.4 % of a step.
__device__ __forceinline__ void add_abt_ahead(Fragment& c, const float* a, int a_step,
                                              const float* b, int b_step) {
  float u[2][R][4], v[2][C][4];
  const auto load = [&](int to, int x) {
#pragma unroll
    for (int i = 0; i < R; ++i) load_vector<4>(u[to][i], a + i * a_step + x);
#pragma unroll
    for (int j = 0; j < C; ++j) load_vector<4>(v[to][j], b + j * b_step + x);
  };
  load(0, 0);
#pragma unroll 2
  for (int x = 0; x < side; x += 4) {
    const int now = x / 4 % 2;
    load(1 - now, (x + 4) % side);
#pragma unroll
    for (int e = 0; e < 4; ++e)
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int j = 0; j < C; ++j) c[i][j] += u[now][i][e] * v[now][j][e];
  }
}
__device__ __forceinline__ void add_ab_ahead(Fragment& c, const float* a, int a_step,
                                             const float* b, int b_stride) {
  float u[2][R][4], v[2][C];
  const auto load = [&](int to, int x) {
#pragma unroll
    for (int i = 0; i < R; ++i) load_vector<4>(u[to][i], a + i * a_step + x);
  };
  load(0, 0);
  load_vector<4>(v[0], b);
#pragma unroll 2
  for (int x = 0; x < side; x += 4) {
    const int now = x / 4 % 2;
    load(1 - now, (x + 4) % side);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      load_vector<4>(v[1 - e % 2], b + (x + e + 1) % side * b_stride);
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int j = 0; j < C; ++j) c[i][j] += u[now][i][e] * v[e % 2][j];
    }
  }
}
template <int N>
__device__ __forceinline__ void add_atb_ahead(float (&c)[N][C], const float* a, int a_stride,
                                              const float* b, int b_stride) {
  float u[2][N], v[2][C];
  const auto load = [&](int to, int x) {
#pragma unroll
    for (int i = 0; i < N; i += 4) load_vector<4>(u[to] + i, a + x * a_stride + i * TY);
    load_vector<4>(v[to], b + x * b_stride);
  };
  load(0, 0);
#pragma unroll 4
  for (int x = 0; x < side; ++x) {
    load(1 - x % 2, (x + 1) % side);
#pragma unroll
    for (int i = 0; i < N; ++i)
#pragma unroll
      for (int j = 0; j < C; ++j) c[i][j] += u[x % 2][i] * v[x % 2][j];
  }
}

// Starts copying a tile, a weight matrix or a bias (tile rows beyond `rows` become 0).
template <int PITCH = pitch>
__device__ __forceinline__ void copy_tile(float* to, const float* from, int rows) {
  constexpr int rows_at_once = threads / (side / 4);
  const int first = int(threadIdx.x / (side / 4)), column = int(threadIdx.x % (side / 4)) * 4;
  to += first * PITCH + column, from += first * side + column;
#pragma unroll
  for (int row = 0; row < side; row += rows_at_once) {
    if (rows >= side || first + row < rows)
      __pipeline_memcpy_async(to + row * PITCH, from + row * side, 16);
    else
      store4(to + row * PITCH, make_float4(0, 0, 0, 0));
  }
}
__device__ __forceinline__ void copy_weight(float* to, const float* from) {
  copy_tile(to, from, side);
}
__device__ __forceinline__ void copy_bias(float* to, const float* from) {
  const int e = int(threadIdx.x) * 4;
  if (e < side) __pipeline_memcpy_async(to + e, from + e, 16);
}

// --- columns x + 16 j, as a product with Wᵀ leaves them -----------------------------------------

// acc = A Wᵀ. More columns: several weights one behind the other.
template <int COLUMNS>
__device__ __forceinline__ void multiply_by_transposed(float (&acc)[R][COLUMNS], const RowTile& t,
                                                       const float* a, const float* w) {
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) acc[i][j] = 0;
  if constexpr (COLUMNS == C)
    add_abt_ahead(acc, a + t.at.y * pitch, TY * pitch, w + t.at.x * pitch, TX * pitch);
  else
    add_abt<side>(acc, a + t.at.y * pitch, TY * pitch, w + t.at.x * pitch, TX * pitch);
}

// The whole row's sums of what each thread has of it: one of `value`, for every row.
__device__ __forceinline__ float row_sum(float value) {
  return ThreadPosition<TX>::reduce_row(value, Sum{});
}

// to := the thread's numbers of rows in device memory.
__device__ __forceinline__ void load_columns(Fragment& to, const RowTile& t, const float* from) {
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j)
      to[i][j] = t.has(i) ? (from + t.at.x)[t.offset(i) + size_t(TX * j)] : 0.f;
}
// The same back; to: may be nullptr.
__device__ __forceinline__ void store_columns(float* to, const RowTile& t, const Fragment& from) {
  if (!to) return;
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j)
      if (t.has(i)) (to + t.at.x)[t.offset(i) + size_t(TX * j)] = from[i][j];
}

// --- columns 4x … 4x + 3, as a product with W leaves them ---------------------------------------

__device__ __forceinline__ void load_rows(Fragment& to, const RowTile& t, const float* from) {
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const float4 v = t.has(i) ? load4(from + 4 * t.at.x + t.offset(i)) : make_float4(0, 0, 0, 0);
    to[i][0] = v.x, to[i][1] = v.y, to[i][2] = v.z, to[i][3] = v.w;
  }
}
__device__ __forceinline__ void store_row(float* to, const float (&v)[C]) {
  store4(to, make_float4(v[0], v[1], v[2], v[3]));
}
template <int PITCH>
__device__ __forceinline__ void store_tile(float* tile, const RowTile& t, const Fragment& from) {
#pragma unroll
  for (int i = 0; i < R; ++i) store_row(tile + t.y(i) * PITCH + 4 * t.at.x, from[i]);
}

// acc += G W
template <int PITCH>
__device__ __forceinline__ void add_product(Fragment& acc, const RowTile& t, const float* g,
                                            const float* w) {
  add_ab_ahead(acc, g + t.at.y * PITCH, TY * PITCH, w + 4 * t.at.x, pitch);
}

// The row of a weight's gradient that is the thread's i-th.
__device__ __forceinline__ int part_row(const ThreadPosition<TX>& at, int i) {
  return i / 4 * (4 * TY) + at.y * 4 + i % 4;
}

// part (out,in) = Gᵀ A: a weight's gradient from the rows of this tile.
template <int PITCH>
__device__ __forceinline__ void weight_gradient(float* part, const RowTile& t, const float* g,
                                                const float* a) {
  Fragment sum = {};
  add_atb_ahead(sum, g + 4 * t.at.y, PITCH, a + 4 * t.at.x, PITCH);
#pragma unroll
  for (int i = 0; i < R; ++i) store_row(part + part_row(t.at, i) * side + 4 * t.at.x, sum[i]);
}

// The same for three layers with one input A at once: a thread owns 12 × 4 numbers, four rows of
// each layer's, so that fewer loads feed more multiply-adds. g: (64 rows, the layers' 3 · 64).
constexpr int triple_pitch = 3 * side + 4;
__device__ __forceinline__ void weight_gradients(float* parts, const float* g, const float* a) {
  const ThreadPosition<TX> at;
  float sum[3 * R][C] = {};
  add_atb_ahead(sum, g + 4 * at.y, triple_pitch, a + 4 * at.x, pitch);
#pragma unroll
  for (int i = 0; i < 3 * R; ++i)
    store_row(parts + i / R * part_floats + part_row(at, i % R) * side + 4 * at.x, sum[i]);
}

// The bias's gradient, the sums of G's columns, in two steps with a barrier between them.
// sums: (TY,64) in shared memory.
__device__ __forceinline__ void column_sums(float* sums, const RowTile& t, const Fragment& g) {
  float sum[C] = {};
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) sum[j] += g[i][j];
  store_row(sums + t.at.y * side + 4 * t.at.x, sum);
}
__device__ __forceinline__ void bias_gradient(float* part, const float* sums) {
  const int o = int(threadIdx.x);
  if (o >= side) return;
  float sum = 0;
#pragma unroll
  for (int y = 0; y < TY; ++y) sum += sums[y * side + o];
  part[side * side + o] = sum;
}

// Layer norm's backward: d := rstd (d − mean(d) − n · mean(d n)), n the normalised rows.
__device__ __forceinline__ void norm_backward(float (&d)[C], const float (&n)[C], float rstd) {
  float sum = 0, dot = 0;
#pragma unroll
  for (int j = 0; j < C; ++j) sum += d[j], dot += d[j] * n[j];
  const float mean = row_sum(sum) / float(side), mean_dot = row_sum(dot) / float(side);
#pragma unroll
  for (int j = 0; j < C; ++j) d[j] = rstd * (d[j] - mean - n[j] * mean_dot);
}

// --- dropout ------------------------------------------------------------------------------------

// A row's 64 bits, one for each channel, are in 8 bytes. Starts copying those of three uses of
// dropout, each warp its own rows'. masks: (3,64 rows,8 bytes).
constexpr int mask_floats = side * 2;
__device__ __forceinline__ void copy_masks(float* masks, const RowTile& t,
                                           unsigned char* const (&kept)[3]) {
  constexpr int rows_of_warp = 2 * R;
  const int lane = int(threadIdx.x) % 32, m = lane / rows_of_warp, row = lane % rows_of_warp;
  const int y = int(threadIdx.x) / 32 * 2 + row % 2 + row / 2 * TY;
  if (m >= 3 || t.first + y >= t.M) return;
  const unsigned char* from = m == 0 ? kept[0] : m == 1 ? kept[1] : kept[2];
  __pipeline_memcpy_async(masks + m * mask_floats + y * 2, from + (t.row + size_t(y)) * 8, 8);
}

// The bits of the thread's numbers of row i after a product with Wᵀ: bit 16 j for column j.
__device__ __forceinline__ uint64_t bits_of_columns(const float* mask, const RowTile& t, int i) {
  return reinterpret_cast<const uint64_t*>(mask)[t.y(i)] >> t.at.x;
}
// After a product with W: bit j.
__device__ __forceinline__ unsigned bits_of_row(const float* mask, const RowTile& t, int i) {
  const unsigned byte = reinterpret_cast<const unsigned char*>(mask)[t.y(i) * 8 + t.at.x / 2];
  return byte >> (t.at.x % 2 * 4);
}

}  // namespace focus::gpu::rows
