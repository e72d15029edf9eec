// Shared by the dense kernels that keep T × T matrices in memory: a block of 64 threads makes
// 64 × 64 or 64 × W numbers of a product, 8 × 8 (or 8 × W / 8) a thread, with the next step's
// factors on their way to shared memory while it multiplies. Such blocks are small, and six of them
// on a multiprocessor wait at different times. All kernels here have so many blocks: a kernel that
// starts early takes room as it gets free, and fewer blocks would come together on the first
// multiprocessors (a step at length 600 with 500 blocks in two kernels: 3.81 ms instead of 3.49). A
// query's slices of the keys lie far apart in the grid: with its three slices side by side, the
// longest slice would always land on the same multiprocessors, 132 blocks apart (0.11 ms).
//
// Registers lie in two banks. A multiply-add reads three of them, which takes a second cycle unless
// one is still at hand from the multiply-add before and the other two lie in different banks: ncu
// calls these cycles dispatch stalls, nvcc's output shows them (R1.reuse; even and odd numbers). In
// the form A Bᵀ both factors lie in the same bank, since both come in vectors along the sum, and
// half of all multiply-adds wait; so factors are transposed where they can be. The compiler finds
// good registers where the loop is short, goes through the 8 × 8 numbers back and forth, and the
// sums are not bound to an order by stores of 16 bytes. Then one multiply-add in 16 waits instead
// of one in three to two, and dispatch stalls fall from 0.46 cycles an instruction to 0.12.
#pragma once

#include <algorithm>

#include "cuda/attention/tile.cuh"
#include "cuda/device/device.h"
#include "cuda/fast/attention/rungs.h"

namespace focus::gpu {

inline constexpr int side = 64;        // queries and keys of a tile
inline constexpr int half = side / 2;  // keys are cut up in halves of it: 600 are 19, but 10 tiles
inline constexpr int tile_threads = 64;
inline constexpr int blocks_at_a_time = 6;  // of a multiprocessor
inline constexpr int tall = side + 4;       // from row to row of a factor's 64 columns

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

// The same for 64 rows, which become columns: number (row,column) goes to (column,row). A warp's
// lanes take 4 rows by 8 columns at a time: whole sectors of memory, different banks. Copies are
// many, 4 bytes each: inside the matrix they go without questions (1 % of a step).
template <int COLUMNS>
struct TransposingCopier {
  static constexpr int M = COLUMNS / 8, N = side / 2 / 4;
  int row, column, rows, columns;
  ptrdiff_t pitch;
  const float* from;

  __device__ TransposingCopier(const float* matrix, ptrdiff_t row_pitch, int row_count,
                               int column_count)
      : row(int(threadIdx.x) / 32 * (side / 2) + int(threadIdx.x) % 32 / 8),
        column(int(threadIdx.x) % 8),
        rows(row_count),
        columns(column_count),
        pitch(row_pitch),
        from(matrix + row * row_pitch + column) {}
  __device__ __forceinline__ void start(float* to, int first_row, int first_column) const {
    to += column * tall + row;
    const float* at = from + first_row * pitch + first_column;
    const auto copies = [&](auto inside) {
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int m = 0; m < M; ++m)
          copy_or_zero<1>(to + 8 * m * tall + 4 * n, at + 8 * m, inside(4 * n, 8 * m));
        at += 4 * pitch;
      }
    };
    const int rows_left = rows - first_row - row, columns_left = columns - first_column - column;
    if (first_row + side <= rows && first_column + COLUMNS <= columns)
      copies([](int, int) { return true; });
    else
      copies([&](int n, int m) { return n < rows_left && m < columns_left; });
  }
};

// Places in a head's matrix are counted in int.
inline constexpr int longest_kept = 46336;

// On the host: "" if the kernels that keep scores support a call that has memory for them.
inline std::string unsupported_with_scores(const Call& c) {
  if (std::string why = wider_than_64(c); !why.empty()) return why;
  if (c.q.T > longest_kept) return str("length ", c.q.T, ", more than ", longest_kept);
  return unsupported_width(c);
}

// How many parts to cut the keys into, `most` at most: so many that the device is full.
inline int parts_of_keys(const Call& c, int most) {
  const int rows = c.q.B / c.parts * c.q.H * tiles_of(c.q.T, side);
  return std::clamp(blocks_at_a_time * device().multiprocessors / std::max(1, rows), 1, most);
}

// Row i of the thread's 8 of 64, and column j of its C of 8·C.
__device__ __forceinline__ int row_of(int y, int i) {
  return column<8, 8>(y, i);
}

// c += u vᵀ, COLUMNS of it. Column by column, back and forth, each multiply-add has a factor in
// common with the one before.
template <int COLUMNS, int C>
__device__ __forceinline__ void add_outer(float (&c)[8][C], const float (&u)[8],
                                          const float (&v)[C]) {
#pragma unroll
  for (int j = 0; j < COLUMNS; ++j)
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const int i = j % 2 ? 7 - n : n;
      c[i][j] += u[i] * v[j];
    }
}

// c += Aᵀ B. a: (K,tall) at the thread's first row, b: (K,…) at its first column. The next factors
// are loaded before a step's multiply-adds. Only the thread's first COLUMNS columns.
template <int K, int COLUMNS, int C>
__device__ __forceinline__ void add_products(float (&c)[8][C], const float* a, const float* b,
                                             int b_stride) {
  constexpr int V = vector_of<C>;
  float u[2][8], v[2][C];
  const auto load = [&](int x) {
    load_vector<4>(u[x % 2], a + x * tall), load_vector<4>(u[x % 2] + 4, a + x * tall + 32);
#pragma unroll
    for (int j = 0; j < COLUMNS; j += V) load_vector<V>(v[x % 2] + j, b + x * b_stride + j * 8);
  };
  load(0);
#pragma unroll 1
  for (int x = 0; x < K; x += 2) {
    load(x + 1);
    add_outer<COLUMNS>(c, u[0], v[0]);
    if (x + 2 < K) load(x + 2);
    add_outer<COLUMNS>(c, u[1], v[1]);
  }
}

// c += A B. a: (…,a_stride) at the thread's first row, the next is 8 rows on; b: as above. Row by
// row, back and forth, with b's numbers loaded one step ahead; unrolled further, or column by
// column, twice as many multiply-adds wait.
template <int K, int C>
__device__ __forceinline__ void add_ab_products(float (&c)[8][C], const float* a, int a_stride,
                                                const float* b, int b_stride) {
  constexpr int V = vector_of<C>;
  float u[8][4], v[2][C];
  const auto load = [&](int x) {
#pragma unroll
    for (int j = 0; j < C; j += V) load_vector<V>(v[x % 2] + j, b + x * b_stride + j * 8);
  };
  load(0);
#pragma unroll 1
  for (int x = 0; x < K; x += 4) {
#pragma unroll
    for (int i = 0; i < 8; ++i) load_vector<4>(u[i], a + 8 * i * a_stride + x);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (x + e + 1 < K) load(x + e + 1);
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int n = 0; n < C; ++n) {
          const int j = i % 2 ? C - 1 - n : n;
          c[i][j] += u[i][e] * v[e % 2][j];
        }
    }
  }
}

// Products of a block's 64 queries and one tile of 64 keys after another: a step takes a chunk of a
// tile's channels.
template <int W>
struct RowTiles {
  static constexpr int chunk = W < 32 ? W : 32, chunks = W / chunk;
  static constexpr int rows_floats = W * tall, chunk_floats = chunk * tall;

  const ThreadPosition<8> at;
  float *rows, *keys;  // shared: (W,tall), two of (chunk,tall)

  // Calls meanwhile() once copies are on their way; then, for tiles from half `first` to half
  // last-1, before(first key) ahead of a tile's last chunk and after(first key, products) behind
  // it. Of the last tile there may be only the first half.
  template <class Meanwhile, class Before, class After>
  __device__ __forceinline__ void for_tiles(const Heads& q, int i0, const Heads& k, int batch_head,
                                            int first, int last, const Meanwhile& meanwhile,
                                            const Before& before, const After& after) const {
    // The first chunk comes first: the second one is not waited for with it.
    const TransposingCopier<chunk> queries(q.of(batch_head), q.row_stride, q.T, q.D);
    queries.start(rows, i0, 0);
    const TransposingCopier<chunk> copier(k.of(batch_head), k.row_stride, k.T, k.D);
    const auto copy = [&](int step) {
      copier.start(keys + step % 2 * chunk_floats, first * half + step / chunks * side,
                   step % chunks * chunk);
      __pipeline_commit();
    };
    const int steps = (last - first + 1) / 2 * chunks;
    copy(0);
    if (chunks > 1) queries.start(rows + chunk_floats, i0, chunk), copy(1);
    meanwhile();
    float sum[8][8] = {};
    for (int step = 0; step < steps; ++step) {
      if (chunks > 1 && step == 0)
        __pipeline_wait_prior(1);
      else
        __pipeline_wait_prior(0);
      __syncthreads();  // this chunk is there for all, and nobody reads the one before
      if (step + 1 < steps && (chunks == 1 || step > 0)) copy(step + 1);
      const bool tile_ends = step % chunks == chunks - 1;
      const int j0 = first * half + step / chunks * side;
      if (tile_ends) before(j0);
      const float* a = rows + step % chunks * chunk_floats + 4 * at.y;
      const float* b = keys + step % 2 * chunk_floats + 4 * at.x;
      if (j0 / half + 1 < last)
        add_products<chunk, 8>(sum, a, b, tall);
      else
        add_products<chunk, 4>(sum, a, b, tall);
      if (!tile_ends) continue;
      after(j0, sum);
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[i][j] = 0;
    }
  }
};

// What one kernel makes in parts the next one may use before all of it is there: blocks announce
// parts in counters, others wait until all parts of what they need are announced. The next kernel's
// blocks start only when all of this one's run, so that such a wait ends.
__device__ __forceinline__ void announce_part(int* parts) {
  __threadfence();
  __syncthreads();  // the block's part is written
  if (threadIdx.x == 0) atomicAdd(parts, 1);
}
// Until counters first … last-1 have come to n. What was announced is then read from the
// second-level cache, where it is: by __ldcg or copies of 16 bytes.
__device__ __forceinline__ void wait_for_parts(const int* parts, int first, int last, int n) {
  const volatile int* now = parts;
  for (int i = first + int(threadIdx.x); i < last; i += tile_threads)
    while (now[i] < n) spin();
  __threadfence();
  __syncthreads();
}
[[maybe_unused]] static __global__ void clear_parts(int* parts, int n) {
  let_next_start();
  wait_for_previous();
  for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) parts[i] = 0;
}

// Writes `factor` times the thread's numbers of C columns to row `row`, one by one: a store of 16
// bytes would bind the sums to registers in order.
template <int C>
__device__ __forceinline__ void store_row(const Heads& to, int batch_head, int row, int x,
                                          const float (&sum)[C], float factor) {
  if (row >= to.T) return;
  float* at_row = to.of(batch_head) + row * to.row_stride;
#pragma unroll
  for (int c = 0; c < C; ++c)
    if (const int d = column<8, C>(x, c); d < to.D) at_row[d] = sum[c] * factor;
}

}  // namespace focus::gpu
