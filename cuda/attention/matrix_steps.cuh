// What the dense kernels share that keep T × T matrices in memory: a block of 64 threads makes
// 64 × 64 or 64 × W numbers of a product, 8 × 8 (or 8 × W / 8) a thread, with the next step's
// factors on their way to shared memory while it multiplies. Such blocks are small, and many of
// them on a multiprocessor wait at different times.
//
// TODO banks
#pragma once

#include "cuda/attention/tile.cuh"

namespace focus::gpu {

inline constexpr int side = 64;  // queries and keys of a tile
inline constexpr int tile_threads = 64;
inline constexpr int tall = side + 4;  // from row to row of a factor's 64 columns

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
  __device__ __forceinline__ void start(float* to, int stride, int first_row,
                                        int first_column) const {
    to += row * stride + column;
    const float* at = from + first_row * pitch + first_column;
    const int left = first_column + column < columns ? rows - first_row - row : 0;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      copy_or_zero<4>(to + n * at_once * stride, at, n * at_once < left);
      at += at_once * pitch;
    }
  }
};

// 64 rows of COLUMNS numbers of a matrix on their way to shared memory, where they become columns:
// a thread carries a row in registers. Neighbouring threads write to neighbouring banks.
template <int COLUMNS>
struct Transposer {
  static constexpr int vectors = COLUMNS / 4;
  int rows, columns;  // of the matrix
  ptrdiff_t pitch;
  const float* from;  // row 0, if it were the thread's
  float4 carried[vectors];

  __device__ Transposer(const float* matrix, ptrdiff_t row_pitch, int row_count, int column_count)
      : rows(row_count), columns(column_count), pitch(row_pitch), from(matrix) {}
  __device__ __forceinline__ void load(int first_row, int first_column) {
    const int row = first_row + int(threadIdx.x), left = row < rows ? columns - first_column : 0;
    const float* at = from + row * pitch + first_column;
#pragma unroll
    for (int m = 0; m < vectors; ++m)
      carried[m] = 4 * m < left ? load4(at + 4 * m) : make_float4(0, 0, 0, 0);
  }
  // Writes change(number).
  template <class F>
  __device__ __forceinline__ void store(float* to, const F& change) const {
    to += threadIdx.x;
#pragma unroll
    for (int m = 0; m < vectors; ++m) {
      to[(4 * m) * tall] = change(carried[m].x), to[(4 * m + 1) * tall] = change(carried[m].y);
      to[(4 * m + 2) * tall] = change(carried[m].z), to[(4 * m + 3) * tall] = change(carried[m].w);
    }
  }
  __device__ __forceinline__ void store(float* to) const {
    store(to, [](float x) { return x; });
  }
};

// Row i of the thread's 8 of 64, and column j of its C of 8·C.
__device__ __forceinline__ int row_of(int y, int i) {
  return column<8, 8>(y, i);
}

// c += u vᵀ. Column by column, back and forth, each multiply-add has a factor in common with the
// one before.
template <int C>
__device__ __forceinline__ void add_outer(float (&c)[8][C], const float (&u)[8],
                                          const float (&v)[C]) {
#pragma unroll
  for (int j = 0; j < C; ++j)
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const int i = j % 2 ? 7 - n : n;
      c[i][j] += u[i] * v[j];
    }
}

// c += Aᵀ B. a: (K,tall) at the thread's first row, b: (K,…) at its first column. The next factors
// are loaded before a step's multiply-adds.
template <int K, int C>
__device__ __forceinline__ void add_products(float (&c)[8][C], const float* a, const float* b,
                                             int b_stride) {
  constexpr int V = vector_of<C>;
  float u[2][8], v[2][C];
  const auto load = [&](int x) {
    load_vector<4>(u[x % 2], a + x * tall), load_vector<4>(u[x % 2] + 4, a + x * tall + 32);
#pragma unroll
    for (int j = 0; j < C; j += V) load_vector<V>(v[x % 2] + j, b + x * b_stride + j * 8);
  };
  load(0);
#pragma unroll 1
  for (int x = 0; x < K; x += 2) {
    load(x + 1);
    add_outer(c, u[0], v[0]);
    if (x + 2 < K) load(x + 2);
    add_outer(c, u[1], v[1]);
  }
}

// Products of a block's 64 queries and one tile of 64 keys after another: a step takes a chunk of a
// tile's channels.
template <int W>
struct RowTiles {
  static constexpr int chunk = W < 32 ? W : 32, chunks = W / chunk;
  static constexpr int rows_floats = W * tall, chunk_floats = chunk * tall;

  const Place<8> at;
  float *rows, *keys;  // shared: (W,tall), two of (chunk,tall)

  // Calls seen(channel, numbers) for each chunk of the query with the thread's number; then, for
  // the tiles first … last-1, before(first key) ahead of a tile's last chunk and after(first key,
  // products) behind it. Ahead: the next tile is loaded while products are made; where there are no
  // registers for that, after after().
  template <bool Ahead, class Seen, class Before, class After>
  __device__ __forceinline__ void for_tiles(const Heads& q, int i0, const Heads& k, int unit,
                                            int first, int last, const Seen& seen,
                                            const Before& before, const After& after) const {
    Transposer<chunk> queries(q.of(unit), q.row_stride, q.T, q.D);
    Transposer<chunk> next(k.of(unit), k.row_stride, k.T, k.D);
    const auto load = [&](int step) { next.load(step / chunks * side, step % chunks * chunk); };
    load(first * chunks);
#pragma unroll
    for (int c = 0; c < chunks; ++c) {
      queries.load(i0, c * chunk);
      seen(c * chunk, queries.carried);
      queries.store(rows + c * chunk_floats);
    }
    next.store(keys + first * chunks % 2 * chunk_floats);
    float sum[8][8] = {};
    for (int tile = first; tile < last; ++tile) {
#pragma unroll
      for (int c = 0; c < chunks; ++c) {
        const int step = tile * chunks + c;
        const bool tile_ends = c == chunks - 1, more = !tile_ends || tile + 1 < last;
        __syncthreads();  // this chunk is there for all, and nobody reads the one before
        if (tile_ends) before(tile * side);
        if (more && (Ahead || !tile_ends)) load(step + 1);
        add_products<chunk>(sum, rows + c * chunk_floats + 4 * at.y,
                            keys + step % 2 * chunk_floats + 4 * at.x, tall);
        if (tile_ends) {
          after(tile * side, sum);
#pragma unroll
          for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int j = 0; j < 8; ++j) sum[i][j] = 0;
          if (more && !Ahead) load(step + 1);
        }
        if (more) next.store(keys + (step + 1) % 2 * chunk_floats);
      }
    }
  }
};

// Writes `factor` times the thread's 8 × C numbers to 64 rows from row0 on. (The factor sets the
// sums free from the registers that a store of 16 bytes wants.)
template <int C>
__device__ __forceinline__ void store_rows(const Heads& to, int unit, int row0, const Place<8>& at,
                                           const float (&sum)[8][C], float factor) {
  constexpr int V = vector_of<C>;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int row = row0 + row_of(at.y, i);
    if (row >= to.T) continue;
    float* at_row = to.of(unit) + row * to.row_stride;
#pragma unroll
    for (int c = 0; c < C; c += V) {
      const int d = column<8, C>(at.x, c);
      if (d >= to.D) continue;
      if constexpr (V == 4)
        store4(at_row + d, make_float4(sum[i][c] * factor, sum[i][c + 1] * factor,
                                       sum[i][c + 2] * factor, sum[i][c + 3] * factor));
      else
        store2(at_row + d, make_float2(sum[i][c] * factor, sum[i][c + 1] * factor));
    }
  }
}

}  // namespace focus::gpu
