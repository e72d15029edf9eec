// What the dense kernels share that keep T × T matrices in memory: a block of 64 threads makes
// 64 × 64 or 64 × W numbers of a product, 8 × 8 (or 8 × W / 8) a thread, with the next step's
// factors on their way to shared memory while it multiplies. Such blocks are small, and many of
// them on a multiprocessor wait at different times.
//
// A loop's instructions beside the multiply-adds cost as much as these, so: copies take no branch,
// rows of T × T matrices are read and written 16 bytes at a time.
#pragma once

#include "cuda/attention/tile.cuh"

namespace focus::gpu {

inline constexpr int side = 64;  // queries and keys of a tile
inline constexpr int tile_threads = 64;

// Copies ROWS × COLUMNS numbers of a matrix of `rows` rows to shared memory, again and again from
// other places; 0 outside of it. A warp copies half of the rows. What does not change from step to
// step is computed once.
template <int ROWS, int COLUMNS>
struct Copier {
  static constexpr int vectors = COLUMNS / 4, at_once = 32 / vectors, N = ROWS / 2 / at_once;
  static_assert(32 % vectors == 0 && ROWS / 2 % at_once == 0);
  int row, column, rows, columns;  // the thread's first place; the matrix
  ptrdiff_t pitch;
  const float* from;  // the thread's first number, from row 0 and column 0 on

  __device__ Copier(const float* matrix, ptrdiff_t row_pitch, int row_count, int column_count)
      : row(int(threadIdx.x) / 32 * (ROWS / 2) + int(threadIdx.x) % 32 / vectors),
        column(int(threadIdx.x) % vectors * 4),
        rows(row_count),
        columns(column_count),
        pitch(row_pitch),
        from(matrix + row * row_pitch + column) {}
  // place(n): where the thread's n-th vector goes, at row `row` + n · at_once.
  template <class F>
  __device__ __forceinline__ void start_at(int first_row, int first_column, const F& place) const {
    const float* at = from + first_row * pitch + first_column;
    const int left = first_column + column < columns ? rows - first_row - row : 0;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      copy_or_zero(place(n), at, n * at_once < left);
      at += at_once * pitch;
    }
  }
  __device__ __forceinline__ void start(float* to, int stride, int first_row,
                                        int first_column) const {
    to += row * stride + column;
    start_at(first_row, first_column, [&](int n) { return to + n * at_once * stride; });
  }
};

template <int C>
__device__ __forceinline__ void outer(float (&c)[8][C], const float (&u)[8], const float (&v)[C]) {
#if ORDER == 0
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) c[i][j] += u[i] * v[j];
#elif ORDER == 1  // snake rows
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) { const int jj = i % 2 ? C - 1 - j : j; c[i][jj] += u[i] * v[jj]; }
#elif ORDER == 2  // columns
#pragma unroll
  for (int j = 0; j < C; ++j)
#pragma unroll
    for (int i = 0; i < 8; ++i) { const int ii = j % 2 ? 7 - i : i; c[ii][j] += u[ii] * v[j]; }
#elif ORDER == 3  // 2x2 snake pairs (cublas-like)
#pragma unroll
  for (int i = 0; i < 8; i += 2)
#pragma unroll
    for (int j = 0; j < C; ++j) { const int jj = i / 2 % 2 ? C - 1 - j : j;
      const int a = j % 2; c[i + a][jj] += u[i + a] * v[jj]; c[i + 1 - a][jj] += u[i + 1 - a] * v[jj]; }
#endif
}

#define PRAGMA(x) _Pragma(#x)
#define UNROLL(n) PRAGMA(unroll n)
template <int K, int C>
__device__ __forceinline__ void my_atb(float (&c)[8][C], const float* a, int a_stride, const float* b, int b_stride) {
  constexpr int V = vector_of<C>;
UNROLL(UN)
  for (int x = 0; x < K; ++x) {
    float u[8], v[C];
    load_vector<4>(u, a + x * a_stride); load_vector<4>(u + 4, a + x * a_stride + 32);
#pragma unroll
    for (int j = 0; j < C; j += V) load_vector<V>(v + j, b + x * b_stride + j * 8);
    outer(c, u, v);
  }
}
template <int K, int C>
__device__ __forceinline__ void my_ab(float (&c)[8][C], const float* a, int a_step, const float* b, int b_stride) {
  constexpr int V = vector_of<C>;
UNROLL(UNAB)
  for (int x = 0; x < K; x += 4) {
    float w[8][4];
#pragma unroll
    for (int i = 0; i < 8; ++i) load_vector<4>(w[i], a + i * a_step + x);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float u[8], v[C];
#pragma unroll
      for (int i = 0; i < 8; ++i) u[i] = w[i][e];
#pragma unroll
      for (int j = 0; j < C; j += V) load_vector<V>(v + j, b + (x + e) * b_stride + j * 8);
      outer(c, u, v);
    }
  }
}
// Rows of WIDTH numbers without padding whose vectors are permuted, so that threads which read rows
// four apart use different banks. Then a thread's columns of a product with Bᵀ can be two vectors of
// four neighbours, 4·x and 32 + 4·x, which memory takes 16 bytes at a time.
template <int WIDTH>
__device__ __forceinline__ int swizzled(int row, int vector) {
  return row * WIDTH + ((vector ^ (row >> 2 & (WIDTH / 4 - 1))) << 2);
}

// c += A Bᵀ for 8 × 8 numbers, with B's rows swizzled; a: at the thread's first row.
template <int WIDTH>
__device__ __forceinline__ void add_abt_swizzled(float (&c)[8][8], const float* a, int a_step,
                                                 const float* b, int x) {
UNROLL(UNAB)
  for (int d = 0; d < WIDTH / 4; ++d) {
    float u[8][4], v[8][4];
#pragma unroll
    for (int i = 0; i < 8; ++i) load_vector<4>(u[i], a + i * a_step + d * 4);
    const float* at = b + swizzled<WIDTH>(4 * x, d);
#pragma unroll
    for (int j = 0; j < 8; ++j) load_vector<4>(v[j], at + (j % 4 + j / 4 * 32) * WIDTH);
#pragma unroll
    for (int e = 0; e < 4; ++e)
{ float p[8], r[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) p[i] = u[i][e], r[i] = v[i][e];
      outer(c, p, r); }
  }
}

// Products with Bᵀ of a block's 64 rows and one tile of 64 keys after another: a step takes a chunk
// of a tile's channels.
template <int W>
struct RowTiles {
  static constexpr int chunk = W < 32 ? W : 32, chunks = W / chunk, stride = W + 4;
  static constexpr int rows_floats = side * stride, chunk_floats = side * chunk;

  const Place<8> at;
  float *rows, *keys;  // shared: (64,stride); two of (64,chunk)

  // Calls before() ahead of a tile's last chunk and after(first key, products) behind it, for the
  // tiles first … last-1. The rows are on their way, in no group yet.
  template <class Before, class After>
  __device__ __forceinline__ void for_tiles(const Heads& k, int unit, int first, int last,
                                            const Before& before, const After& after) const {
    const Copier<side, chunk> copier(k.of(unit), k.row_stride, k.T, k.D);
    const auto copy = [&](int step) {
      float* to = keys + step % 2 * chunk_floats;
      copier.start_at(step / chunks * side, step % chunks * chunk, [&](int n) {
        return to + swizzled<chunk>(copier.row + n * copier.at_once, copier.column / 4);
      });
      __pipeline_commit();
    };
    copy(first * chunks);
    float sum[8][8] = {};
    for (int step = first * chunks; step < last * chunks; ++step) {
      __pipeline_wait_prior(0);
      __syncthreads();  // this chunk is there for all, and nobody reads the one before
      if (step + 1 < last * chunks) copy(step + 1);
      const bool tile_ends = step % chunks == chunks - 1;
      const int j0 = step / chunks * side;
      if (tile_ends) before(j0);
      add_abt_swizzled<chunk>(sum, rows + at.y * stride + step % chunks * chunk, 8 * stride,
                              keys + step % 2 * chunk_floats, at.x);
      if (!tile_ends) continue;
      after(j0, sum);
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[i][j] = 0;
    }
  }
};

}  // namespace focus::gpu
