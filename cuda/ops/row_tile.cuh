// What the fused kernels of a transformer block are made of: a block of 256 threads takes 64 rows
// (tokens) of 64 channels through several operations without leaving the multiprocessor.
//
// Tiles of 64 × 64 numbers lie in shared memory; a product of two goes into registers, 4 × 4
// numbers a thread (cuda/attention/tile.cuh). A thread's rows are y, y + 16, …; its columns are
// x, x + 16, … after a product with Wᵀ, and 4x … 4x + 3 after one with W. A row lies in 16 lanes of
// one warp, so a sum over its channels needs shuffles only.
#pragma once

#include "cuda/attention/tile.cuh"
#include "cuda/ops/philox.cuh"

namespace focus::gpu::rows {

constexpr int side = 64, TX = 16, TY = 16, threads = TX * TY, R = side / TY, C = side / TX;
constexpr int pitch = side + 4, tile_floats = side * pitch;
constexpr int mask_words = side * side / 32;     // of a tile, a bit a number
constexpr int part_floats = side * side + side;  // a weight's gradient and its bias's
using Fragment = float[R][C];

// The tile of a block, of which each run has tiles_of_run.
struct Tile {
  int run, first, M;  // its first row and all rows, in the run
  size_t row;         // its first row among those of all runs
  Place<TX> at;

  __device__ explicit Tile(int rows_of_run) : M(rows_of_run) {
    const int tiles = (M + side - 1) / side;
    run = int(blockIdx.x) / tiles, first = int(blockIdx.x) % tiles * side;
    row = size_t(run) * size_t(M) + size_t(first);
  }
  __device__ int y(int i) const { return at.y + TY * i; }
  __device__ bool has(int i) const { return first + y(i) < M; }
  __device__ size_t offset(int i) const { return (row + size_t(y(i))) * side; }
};

// Starts copying a tile, or a weight matrix (tile rows beyond `rows` become 0).
template <int PITCH = pitch>
__device__ __forceinline__ void copy_tile(float* to, const float* from, int rows) {
#pragma unroll
  for (int e = int(threadIdx.x); e < side * side / 4; e += threads) {
    const int row = e / (side / 4), column = e % (side / 4) * 4;
    if (row < rows)
      __pipeline_memcpy_async(to + row * PITCH + column, from + row * side + column, 16);
    else
      store4(to + row * PITCH + column, make_float4(0, 0, 0, 0));
  }
}
__device__ __forceinline__ void copy_weight(float* to, const float* from) {
  copy_tile(to, from, side);
}

// --- columns x + 16 j, as a product with Wᵀ leaves them -----------------------------------------

// acc = A Wᵀ. More columns: several weights one behind the other.
template <int COLUMNS>
__device__ __forceinline__ void multiply_by_transposed(float (&acc)[R][COLUMNS], const Tile& t,
                                                       const float* a, const float* w) {
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) acc[i][j] = 0;
  add_abt<side>(acc, a + t.at.y * pitch, TY * pitch, w + t.at.x * pitch, TX * pitch);
}

// The whole row's sums of what each thread has of it: one of `value`, for every row.
__device__ __forceinline__ float row_sum(float value) {
  return Place<TX>::reduce_row(value, Sum{});
}

// --- columns 4x … 4x + 3, as a product with W leaves them ---------------------------------------

__device__ __forceinline__ void load_rows(Fragment& to, const Tile& t, const float* from) {
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const float4 v = t.has(i) ? load4(from + t.offset(i) + 4 * t.at.x) : make_float4(0, 0, 0, 0);
    to[i][0] = v.x, to[i][1] = v.y, to[i][2] = v.z, to[i][3] = v.w;
  }
}
__device__ __forceinline__ void store_row(float* to, const float (&v)[C]) {
  store4(to, make_float4(v[0], v[1], v[2], v[3]));
}
__device__ __forceinline__ void store_tile(float* tile, const Tile& t, const Fragment& from) {
#pragma unroll
  for (int i = 0; i < R; ++i) store_row(tile + t.y(i) * pitch + 4 * t.at.x, from[i]);
}

// acc += G W
template <int PITCH = pitch>
__device__ __forceinline__ void add_product(Fragment& acc, const Tile& t, const float* g,
                                            const float* w) {
  add_ab<TX, side>(acc, g + t.at.y * PITCH, TY * PITCH, w + 4 * t.at.x, pitch);
}

// part (out,in) = Gᵀ A: a weight's gradient from the rows of this tile.
__device__ __forceinline__ void weight_gradient(float* part, const Tile& t, const float* g,
                                                const float* a) {
  Fragment sum = {};
  add_atb<TX, TY, side>(sum, g + 4 * t.at.y, pitch, a + 4 * t.at.x, pitch);
#pragma unroll
  for (int i = 0; i < R; ++i)
    store_row(part + (i / 4 * (4 * TY) + t.at.y * 4 + i % 4) * side + 4 * t.at.x, sum[i]);
}

// The same for three layers with one input A at once: a thread owns 12 × 4 numbers, four rows of
// each layer's, so that fewer loads feed more multiply-adds. g: (64 rows, the layers' 3 · 64).
constexpr int triple_pitch = 3 * side + 4;
__device__ __forceinline__ void weight_gradients(float* parts, const float* g, const float* a) {
  constexpr int X = TX, Y = TY;
  const Place<X> at;
  float sum[12][C] = {};
  add_atb<X, Y, side>(sum, g + 4 * at.y, triple_pitch, a + 4 * at.x, pitch);
#pragma unroll
  for (int i = 0; i < 12; ++i)
    store_row(parts + i / 4 * part_floats + (at.y * 4 + i % 4) * side + 4 * at.x, sum[i]);
}

// The bias's gradient, the sums of G's columns, in two steps with a barrier between them.
// sums: (TY,64) in shared memory.
__device__ __forceinline__ void column_sums(float* sums, const Tile& t, const Fragment& g) {
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

// Eight bits for each group of eight channels. Draws a tile's bits: to `words` in shared memory,
// two for each row, and to the same rows of `kept` (all rows, 8 bytes), for the backward.
__device__ __forceinline__ void draw_mask(unsigned* words, const Tile& t, const DropoutDraw& draw,
                                          unsigned char* kept) {
  unsigned char* bytes = reinterpret_cast<unsigned char*>(words);
#pragma unroll
  for (int e = int(threadIdx.x); e < 8 * side; e += threads) {
    const int y = e / 8;
    if (t.first + y >= t.M) continue;
    const uint64_t group = uint64_t(t.first + y) * 8 + uint64_t(e % 8);
    const unsigned bits = kept_bits(draw, t.run, group);
    bytes[e] = static_cast<unsigned char>(bits);
    if (kept) kept[t.row * 8 + size_t(e)] = static_cast<unsigned char>(bits);
  }
}

// The bits of the thread's numbers after a product with W: bit 4 i + j. All are set without
// dropout.
__device__ __forceinline__ unsigned load_mask(const Tile& t, const unsigned char* kept) {
  if (!kept) return ~0u;
  unsigned bits = 0;
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const unsigned byte = t.has(i) ? kept[(t.row + size_t(t.y(i))) * 8 + size_t(t.at.x / 2)] : 0u;
    bits |= (byte >> (t.at.x % 2 * 4) & 15) << (4 * i);
  }
  return bits;
}

}  // namespace focus::gpu::rows
