// Shared by the dense rungs on tensor cores: rounded copies of q, k, v and dO as their products
// read them, and the fragments of these products.
//
// A first kernel rounds the tensors into memory, once for all blocks that read them: rows of bf16
// pairs, of tf32, or (3xtf32) float32 as it is, 0 beyond T and D. So the other kernels copy whole
// tiles and ask no bounds, and the backward can have the forward's copies.
//
// A warp multiplies 16 rows, which it keeps in registers, with tiles in shared memory, whose rows
// are a factor's columns (scores: inner numbers are channels) or its rows (weights times values:
// inner numbers are keys). What comes of the first product lies in the registers that the second
// wants, since any order of inner numbers does if both factors agree:
//
//   bf16   the order of tensor_cores/mma.h; load_matrices() reads rows and columns alike
//   tf32   a lane reads four channels at once, two of each product of 8. Column 2t + e of a result
//          stands for row t + 4e of 8, and for channel 4t + 16e + j of 32 in the j-th tile of 8:
//          then all reads are of 16 bytes, and the 8 lanes that are served at once find 32
//          different banks, with rows 68 (or 36) words apart
#pragma once

#include "cuda/device/launch.h"
#include "cuda/fast/attention/rungs.h"
#include "cuda/fast/tensor_cores/mma_operands.h"

namespace focus::gpu {

struct alignas(16) Words4 {
  unsigned x, y, z, w;
};
struct alignas(8) Words2 {
  unsigned x, y;
};
__device__ __forceinline__ Words4 words4(const unsigned* at) {
  return *reinterpret_cast<const Words4*>(at);
}

// Factors of 16 inner numbers: of 16 rows, and of 8 columns.
template <Precision P>
struct Fragments {  // of 32 bits: two products of 8 each
  struct A {
    unsigned at[2][4];
  };
  struct B {
    unsigned at[2][2];
  };
  static __device__ __forceinline__ unsigned rounded(float x) {
    return __float_as_uint(operand<P>(x));
  }
  static __device__ __forceinline__ void split(unsigned x, unsigned& high, unsigned& low) {
    Factors<Precision::tf32x3>::split(__uint_as_float(x), high, low);
  }
  // Of so many products that a sum takes one after another the s-th. 3xtf32: of high + low.
  static constexpr int steps = P == Precision::tf32 ? 2 : 6;
  static __device__ __forceinline__ void add(float (&c)[4], const A& a, const B& b, int s) {
    if constexpr (P == Precision::tf32) {
      multiply_tf32(c, a.at[s], b.at[s]);
    } else {
      const int h = s / 3;
      unsigned a_part[4], b_part[2], other;
#pragma unroll
      for (int i = 0; i < 4; ++i)
        s % 3 == 0 ? split(a.at[h][i], other, a_part[i]) : split(a.at[h][i], a_part[i], other);
#pragma unroll
      for (int i = 0; i < 2; ++i)
        s % 3 == 1 ? split(b.at[h][i], other, b_part[i]) : split(b.at[h][i], b_part[i], other);
      multiply_tf32(c, a_part, b_part);
    }
  }
};

template <>
struct Fragments<Precision::bf16> {
  struct A {
    unsigned at[4];
  };
  struct B {
    unsigned at[2];
  };
  static constexpr int steps = 1;
  static __device__ __forceinline__ void add(float (&c)[4], const A& a, const B& b, int) {
    multiply_bf16(c, a.at, b.at);
  }
};

// Tiles of W channels.
template <Precision P, int W>
struct RoundedTiles {
  static_assert(W % 32 == 0);
  using F = Fragments<P>;
  using A = typename F::A;
  using B = typename F::B;
  static constexpr int width = W;
  static constexpr bool pairs = P == Precision::bf16;  // two numbers a word
  static constexpr int words = pairs ? W / 2 : W;      // of a row in memory
  static constexpr int stride = words + 4;             // from row to row in shared memory
  static constexpr int rows = 128;                     // of a tile, and of a block
  static constexpr int tile_words = rows * stride;
  // A step's shared memory: two tiles; of queries, in the backward, their numbers; dropout's words
  // for 128 by 128 weights, a row for each 32 keys.
  static constexpr int stats_at = 2 * tile_words, bits_at = stats_at + 2 * rows;
  static constexpr int bit_columns = rows / 32, step_words = bits_at + bit_columns * rows;
  static constexpr size_t shared_bytes = shared_bytes_for(2 * step_words);

  int lane = int(threadIdx.x) % 32, g = lane / 4, t = lane % 4;

  // Which column of a result's tile of 8 a lane's e-th number stands for; which of 32 channels its
  // e-th number in the j-th of 4 tiles.
  __device__ __forceinline__ int column(int e) const { return pairs ? 2 * t + e : t + 4 * e; }
  // Of a word that is shifted by column(0), the bit of the lane's e-th number in the n-th tile
  // of 8.
  static constexpr __device__ unsigned bit_of(int n, int e) {
    return 1u << (8 * n + (pairs ? e : 4 * e));
  }
  // Which row of a tile of 16 the lane's g-th and g + 8-th stand for.
  __device__ __forceinline__ int row(int half) const {
    return 8 * half + (pairs ? g : g / 2 + g % 2 * 4);
  }

  // Starts copying a tile to shared memory.
  template <int THREADS>
  static __device__ __forceinline__ void copy(unsigned* to, const unsigned* from) {
    constexpr int vectors = words / 4, all = rows * vectors;
    static_assert(all % THREADS == 0);
#pragma unroll
    for (int n = 0; n < all / THREADS; ++n) {
      const int e = n * THREADS + int(threadIdx.x);
      __pipeline_memcpy_async(to + e / vectors * stride + e % vectors * 4, from + 4 * e, 16);
    }
  }
  // Starts copying dropout's words of ROWS queries from row0 on, for 128 keys from j0 on; 0 where
  // there is none.
  template <int THREADS, int ROWS = rows>
  static __device__ __forceinline__ void copy_bits(unsigned* step, const KeepBits& keep,
                                                   int batch_head, int T, int row0, int j0) {
    if (!keep.words) return;
    const unsigned* head = keep.words + size_t(batch_head) * size_t(T) * size_t(keep.per_row);
    static_assert(ROWS * bit_columns % THREADS == 0 || ROWS * bit_columns < THREADS);
#pragma unroll
    for (int n = 0; n < (ROWS * bit_columns + THREADS - 1) / THREADS; ++n) {
      const int e = n * THREADS + int(threadIdx.x);
      const int row = row0 + e / bit_columns, word = j0 / 32 + e % bit_columns;
      if (ROWS * bit_columns % THREADS == 0 || e < ROWS * bit_columns)
        copy_or_zero<1>(
            reinterpret_cast<float*>(step + bits_at + e % bit_columns * rows + e / bit_columns),
            reinterpret_cast<const float*>(head + (row * keep.per_row + word)),
            row < T && word < keep.per_row);
    }
  }
  // Without dropout all are kept: the words are set once, and the loops have no branch.
  template <int THREADS>
  static __device__ __forceinline__ void keep_all(unsigned* steps, const KeepBits& keep) {
    if (keep.words) return;
#pragma unroll 1
    for (int e = int(threadIdx.x); e < rows * bit_columns; e += THREADS)
      steps[bits_at + e] = steps[step_words + bits_at + e] = all_lanes;
  }
  // 16 rows in memory, as a factor.
  __device__ __forceinline__ void load_a(A (&a)[W / 16], const unsigned* from) const {
#pragma unroll
    for (int c = 0; c < W / 16; ++c) {
      if constexpr (pairs) {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[c].at[i] = from[row(i % 2) * words + 8 * c + t + i / 2 * 4];
      } else {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const Words4 x = words4(from + row(i) * words + 16 * c + 4 * t);
          a[c].at[0][i] = x.x, a[c].at[0][2 + i] = x.y;
          a[c].at[1][i] = x.z, a[c].at[1][2 + i] = x.w;
        }
      }
    }
  }
  // Two results' tiles of 8 as the factor of 16 rows and 16 inner numbers.
  static __device__ __forceinline__ A of_results(const float (&c0)[4], const float (&c1)[4]) {
    if constexpr (pairs) {
      return {{to_bf16s(c0[0], c0[1]), to_bf16s(c0[2], c0[3]), to_bf16s(c1[0], c1[1]),
               to_bf16s(c1[2], c1[3])}};
    } else {
      return {{{F::rounded(c0[0]), F::rounded(c0[2]), F::rounded(c0[1]), F::rounded(c0[3])},
               {F::rounded(c1[0]), F::rounded(c1[2]), F::rounded(c1[1]), F::rounded(c1[3])}}};
    }
  }
  // Rows row … row + 7 of a tile as columns; of their channels the c-th 32.
  __device__ __forceinline__ void load_rows(B (&b)[2], const unsigned* tile, int row, int c) const {
    if constexpr (pairs) {
      unsigned x[4];
      load_matrices(x, tile + (row + lane % 8) * stride + 16 * c + lane / 8 * 4);
      b[0].at[0] = x[0], b[0].at[1] = x[1], b[1].at[0] = x[2], b[1].at[1] = x[3];
    } else {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const Words4 x =
            words4(tile + (row + g / 2 + g % 2 * 4) * stride + 32 * c + 16 * h + 4 * t);
        b[h].at[0][0] = x.x, b[h].at[0][1] = x.y, b[h].at[1][0] = x.z, b[h].at[1][1] = x.w;
      }
    }
  }
  // Rows row … row + 15 of a tile as inner numbers; the c-th 32 channels, 8 in each b.
  __device__ __forceinline__ void load_columns(B (&b)[4], const unsigned* tile, int row,
                                               int c) const {
    if constexpr (pairs) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        unsigned x[4];
        load_transposed(x, tile + (row + lane % 16) * stride + 16 * c + 8 * h + lane / 16 * 4);
        b[2 * h].at[0] = x[0], b[2 * h].at[1] = x[1];
        b[2 * h + 1].at[0] = x[2], b[2 * h + 1].at[1] = x[3];
      }
    } else {
#pragma unroll
      for (int s = 0; s < 2; ++s)
#pragma unroll
        for (int u = 0; u < 2; ++u) {
          const Words4 x =
              words4(tile + (row + 8 * s + t + 4 * u) * stride + 32 * c + g / 2 * 4 + g % 2 * 16);
          b[0].at[s][u] = x.x, b[1].at[s][u] = x.y, b[2].at[s][u] = x.z, b[3].at[s][u] = x.w;
        }
    }
  }
  // Products of 16 rows with 32 of a tile: c[n] has the tile's rows 8n … 8n+7 from `first` on. One
  // sum after another: a product that adds to the one before it would wait for it.
  __device__ __forceinline__ void multiply_rows(float (&c)[4][4], const A (&a)[W / 16],
                                                const unsigned* tile, int first) const {
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) c[n][i] = 0;
#pragma unroll
    for (int x = 0; x < W / 32; ++x) {
      B b[4][2];
#pragma unroll
      for (int n = 0; n < 4; ++n) load_rows(b[n], tile, first + 8 * n, x);
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int s = 0; s < F::steps; ++s)
#pragma unroll
          for (int n = 0; n < 4; ++n) F::add(c[n], a[2 * x + h], b[n][h], s);
    }
  }
  // sum += weights times 32 rows of a tile.
  __device__ __forceinline__ void add_columns(float (&sum)[W / 8][4], const float (&weights)[4][4],
                                              const unsigned* tile, int first) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const A a = of_results(weights[2 * h], weights[2 * h + 1]);
#pragma unroll
      for (int x = 0; x < W / 32; ++x) {
        B b[4];
        load_columns(b, tile, first + 16 * h, x);
#pragma unroll
        for (int s = 0; s < F::steps; ++s)
#pragma unroll
          for (int j = 0; j < 4; ++j) F::add(sum[4 * x + j], a, b[j], s);
      }
    }
  }
  // Writes `factor` times row `half` (0: row g, 1: row g + 8) of 16 to `to`, whose row has D
  // numbers.
  __device__ __forceinline__ void store(float* to, int D, const float (&sum)[W / 8][4], int half,
                                        float factor) const {
    if constexpr (pairs) {
#pragma unroll
      for (int j = 0; j < W / 8; ++j)
        if (const int d = 8 * j + 2 * t; d < D)
          store2(to + d, make_float2(sum[j][2 * half] * factor, sum[j][2 * half + 1] * factor));
    } else {
#pragma unroll
      for (int x = 0; x < W / 32; ++x)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (const int d = 32 * x + 4 * t + 16 * e; d < D) {
            const int i = 2 * half + e;
            store4(to + d, make_float4(sum[4 * x][i] * factor, sum[4 * x + 1][i] * factor,
                                       sum[4 * x + 2][i] * factor, sum[4 * x + 3][i] * factor));
          }
    }
  }
};

// Rounds q, k and v, one after another: each (B·H, padded T, words); BACKWARD: dO, and a query's
// numbers go to stats, (B·H, padded T, 2): the logarithm of its weights' sum in powers of 2, and
// rowsum(dO ∘ O).
struct ToRound {
  Heads q, k, v, d_o, o;
  const float* lse;
};

inline constexpr int round_threads = 256, rows_at_once = 2;  // of a thread

template <Precision P, int W, bool BACKWARD>
__global__ void __launch_bounds__(round_threads) round_18(ToRound x, unsigned* to, float* stats) {
  using X = RoundedTiles<P, W>;
  constexpr int row_lanes = W / 4, rows = round_threads / row_lanes;  // of a block at once
  constexpr int tensors = BACKWARD ? 1 : 3;
  const int T = x.q.T, padded = padded_rows(T), blocks = padded / (rows * rows_at_once);
  const int batch_head = int(blockIdx.x) / blocks, d = int(threadIdx.x) % row_lanes * 4;
  const int row0 = int(blockIdx.x) % blocks * (rows * rows_at_once) + int(threadIdx.x) / row_lanes;
  float4 numbers[rows_at_once][tensors], o[rows_at_once];
  wait_for_previous();
#pragma unroll
  for (int n = 0; n < rows_at_once; ++n) {
    const int row = row0 + n * rows;
    const auto load = [&](const Heads& from) {
      return row < T && d < from.D ? load4(from.of(batch_head) + (row * from.row_stride + d))
                                   : make_float4(0, 0, 0, 0);
    };
    if constexpr (BACKWARD)
      numbers[n][0] = load(x.d_o), o[n] = load(x.o);
    else
      numbers[n][0] = load(x.q), numbers[n][1] = load(x.k), numbers[n][2] = load(x.v);
  }
  const ptrdiff_t tensor = ptrdiff_t{x.q.B} * x.q.H * padded * X::words;
#pragma unroll
  for (int n = 0; n < rows_at_once; ++n) {
    const int row = row0 + n * rows;
    unsigned* at = to + (ptrdiff_t{batch_head} * padded + row) * X::words;
#pragma unroll
    for (int i = 0; i < tensors; ++i) {
      const float4 y = numbers[n][i];
      if constexpr (X::pairs) {
        *reinterpret_cast<Words2*>(at + d / 2) = {to_bf16s(y.x, y.y), to_bf16s(y.z, y.w)};
      } else {
        using F = Fragments<P>;
        *reinterpret_cast<Words4*>(at + d) = {F::rounded(y.x), F::rounded(y.y), F::rounded(y.z),
                                              F::rounded(y.w)};
      }
      at += tensor;
    }
    if constexpr (BACKWARD) {
      const float4 y = numbers[n][0], z = o[n];
      float sum = y.x * z.x + y.y * z.y + (y.z * z.z + y.w * z.w);
#pragma unroll
      for (int lanes = row_lanes / 2; lanes > 0; lanes /= 2)
        sum += __shfl_xor_sync(all_lanes, sum, lanes);
      // Beyond T all weights are 2^(0 - ∞) = 0.
      if (d == 0)
        store2(stats + 2 * (ptrdiff_t{batch_head} * padded + row),
               row < T ? make_float2(x.lse[ptrdiff_t{batch_head} * T + row] * log2_e, sum)
                       : make_float2(INFINITY, 0));
    }
  }
}

// On the host: what the two rungs are made for; calls f(precision, width).
std::string unsupported_on_tensor_cores(const Call& c);
template <class F>
void for_precision_and_width(const Call& c, const F& f) {
  for_tensor_core_precision(c.precision, [&](auto precision) {
    if (c.q.D <= 32)
      f(precision, std::integral_constant<int, 32>{});
    else
      f(precision, std::integral_constant<int, 64>{});
  });
}

inline size_t words_of_copy(const Call& c) {
  return copy_words(c) / 3;
}

template <Precision P, int W, bool BACKWARD>
void start_rounding(const Call& c, unsigned* to, float* stats) {
  constexpr int rows = round_threads / (W / 4) * rows_at_once;
  launch(
      early({"round_18", size_t(c.q.B * c.q.H) * size_t(padded_rows(c.q.T) / rows), round_threads}),
      c.stream, round_18<P, W, BACKWARD>, ToRound{c.q, c.k, c.v, c.d_o, c.o, c.lse}, to, stats);
}

}  // namespace focus::gpu
