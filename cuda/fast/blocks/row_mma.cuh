// The parts of a transformer block's fused kernels on tensor cores (row_tile.cuh has those in
// float32): a thread block takes rows of 64 channels through several operations, a warp 16 of them,
// whole. The numbers stay in registers from one product to the next; shared memory holds weights,
// and what a layer's gradients need from all warps.
//
// Lane 4·g + t holds of the rows g and g + 8 of its warp the columns 16·p + 4·t … + 3, p from 0 to
// 3: 16 bytes at a time, as memory is read and written. To the tensor core
// (cuda/fast/tensor_cores/mma.h) the even ones of 16 columns are one tile of 8, the odd ones
// another: its lane's columns 2t and 2t + 1 in each are those four. The same numbers are the next
// product's first factor as they stand, since the order of the inner numbers is free: 4t and 4t + 1
// are the numbers t and t + 4 of one step of 8, 4t + 2 and 4t + 3 those of another. So a vector of
// a weight's row is two steps' factors, in neighbouring registers, as an instruction wants them.
// Weights lie in rows whose vectors of 16 bytes are exchanged (`swizzled`) so that the lanes of one
// load use different banks.
//
// A row lies in four lanes: sums over its channels take two shuffles. All but products is in
// float32, the sums over a bias too.
#pragma once

#include "cuda/fast/blocks/block.cuh"
#include "cuda/fast/tensor_cores/mma_operands.h"
#include "cuda/ops/activation.cuh"
#include "cuda/simt/simt.h"

namespace focus::gpu::row_mma {

constexpr int side = 64, weight_floats = side * side;
constexpr int own = 16;  // columns of each of a lane's two rows

// at[h][4·p + x]: row g + 8·h, column 16·p + 4·t + x, of 16·GROUPS columns.
template <int GROUPS>
struct Columns {
  float at[2][4 * GROUPS];
};
using Rows = Columns<side / 16>;

struct Lane {
  int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
};

template <int GROUPS = side / 16, class F>
__device__ __forceinline__ void each(const F& f) {
#pragma unroll
  for (int h = 0; h < 2; ++h)
#pragma unroll
    for (int c = 0; c < 4 * GROUPS; ++c) f(h, c);
}

// The rows of a block, a warp's and a lane's place in them.
struct WarpRows : Lane {
  int run, first;  // first: the lane's first row in the tile
  int left;        // rows of the run from there on
  size_t row;      // the lane's first row among those of all runs

  __device__ WarpRows(int rows_of_run, int rows) {
    const int tiles = (rows_of_run + rows - 1) / rows;
    const int begin = int(blockIdx.x) % tiles * rows;
    run = int(blockIdx.x) / tiles;
    first = int(threadIdx.x) / 32 * 16 + g, left = rows_of_run - begin - first;
    row = size_t(run) * size_t(rows_of_run) + size_t(begin + first);
  }
  __device__ bool has(int h) const { return 8 * h < left; }
  __device__ size_t row_of(int h) const { return row + size_t(8 * h); }
  __device__ size_t offset(int h) const { return row_of(h) * side + size_t(4 * t); }
};

__device__ __forceinline__ float4 vector(const Rows& x, int h, int p) {
  return make_float4(x.at[h][4 * p], x.at[h][4 * p + 1], x.at[h][4 * p + 2], x.at[h][4 * p + 3]);
}
__device__ __forceinline__ void set_vector(Rows& x, int h, int p, float4 v) {
  x.at[h][4 * p] = v.x, x.at[h][4 * p + 1] = v.y;
  x.at[h][4 * p + 2] = v.z, x.at[h][4 * p + 3] = v.w;
}

// Rows that do not exist are 0, as all are from nullptr.
__device__ __forceinline__ void load(Rows& to, const WarpRows& t, const float* from) {
#pragma unroll
  for (int h = 0; h < 2; ++h)
#pragma unroll
    for (int p = 0; p < 4; ++p)
      set_vector(to, h, p,
                 from && t.has(h) ? load4(from + t.offset(h) + 16 * p) : make_float4(0, 0, 0, 0));
}
// to: may be nullptr.
__device__ __forceinline__ void store(float* to, const WarpRows& t, const Rows& from) {
  if (!to) return;
#pragma unroll
  for (int h = 0; h < 2; ++h)
#pragma unroll
    for (int p = 0; p < 4; ++p)
      if (t.has(h)) store4(to + t.offset(h) + 16 * p, vector(from, h, p));
}

__device__ __forceinline__ void add(Rows& to, const WarpRows& t, const float* from) {
  Rows more;
  load(more, t, from);
  each([&](int h, int c) { to.at[h][c] += more.at[h][c]; });
}

// As products read them.
template <Precision P, int GROUPS>
__device__ __forceinline__ Columns<GROUPS> operand(const Columns<GROUPS>& x) {
  Columns<GROUPS> result;
  each<GROUPS>([&](int h, int c) { result.at[h][c] = gpu::operand<P>(x.at[h][c]); });
  return result;
}

// The whole row's sum of what each lane has of it.
__device__ __forceinline__ float row_sum(float value) {
  value += __shfl_xor_sync(all_lanes, value, 1);
  return value + __shfl_xor_sync(all_lanes, value, 2);
}

// Normalises the lane's rows. Sets their means and 1/σ.
__device__ __forceinline__ void normalise(Rows& x, float epsilon, float2 (&stats)[2]) {
  // Sums of fours and of those: one number after the other would wait for each.
  const auto sum_of = [](const float(&of)[own]) {
    float sum[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) sum[c] = (of[c] + of[c + 4]) + (of[c + 8] + of[c + 12]);
    return row_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  };
#pragma unroll
  for (int h = 0; h < 2; ++h) stats[h].x = sum_of(x.at[h]) / float(side);
  each([&](int h, int c) { x.at[h][c] -= stats[h].x; });
  float squares[2][own];
  each([&](int h, int c) { squares[h][c] = x.at[h][c] * x.at[h][c]; });
#pragma unroll
  for (int h = 0; h < 2; ++h) stats[h].y = 1.f / sqrtf(sum_of(squares[h]) / float(side) + epsilon);
  each([&](int h, int c) { x.at[h][c] *= stats[h].y; });
}

// The activation, or its slope, of many numbers: chosen once.
template <class F>
__device__ __forceinline__ void with_activation(Activation a, const F& f) {
  if (a == Activation::gelu)
    f(Activation::gelu);
  else if (a == Activation::mish)
    f(Activation::mish);
  else
    f(Activation::relu);
}

// --- in shared memory: 64 rows of 64 numbers ----------------------------------------------------

// Where vectors lie: their numbers are exchanged within a row. Lanes read 8 vectors at once from
//   by_row     two rows, two apart, four neighbouring vectors of each
//   by_column  four rows, four apart, two neighbouring vectors of each
//   tile       two neighbouring rows (when written), or four (when read)
//   pairs      the same of rows of 32 vectors
enum class Swizzle { by_row, by_column, tile, pairs };
template <Swizzle S>
__device__ __forceinline__ constexpr int exchanged(int row) {
  return S == Swizzle::by_row      ? (row >> 1 & 1) << 2
         : S == Swizzle::by_column ? (row >> 2 & 3) << 1
         : S == Swizzle::tile      ? (row & 1) << 2 | (row & 2)
                                   : (row & 3) << 1 | (row & 1);
}
// Of row + more_rows and vector + more_vectors, sums without a carry: what is more is known to the
// compiler, what is not is computed once for many of them.
template <Swizzle S>
__device__ __forceinline__ int swizzled(int row, int vector, int more_rows, int more_vectors) {
  constexpr int stride = S == Swizzle::pairs ? 2 * side : side;
  return row * stride + more_rows * stride +
         ((vector ^ exchanged<S>(row)) ^ (more_vectors ^ exchanged<S>(more_rows))) * 4;
}

// Starts copying a weight, or a bias. COPYING: so many threads share a weight; this is one of them.
template <Swizzle S, int COPYING>
__device__ __forceinline__ void copy_weight(float* to, const float* from, int thread) {
  const int row = thread / 16, v = thread % 16;
  from += row * side + 4 * v;
#pragma unroll
  for (int more = 0; more < side; more += COPYING / 16)
    __pipeline_memcpy_async(to + swizzled<S>(row, v, more, 0), from + more * side, 16);
}
// The thread's part of a weight that it has copied becomes what products read (Numbers::prepared),
// once for all warps: rounded, or two numbers of bf16 in the place of one.
template <Precision P, Swizzle S, int COPYING>
__device__ __forceinline__ void prepare_weight(float* w, int thread) {
  static_assert(P == Precision::tf32 || P == Precision::bf16);
#pragma unroll
  for (int more = 0; more < side; more += COPYING / 16) {
    float* const at = w + swizzled<S>(thread / 16, thread % 16, more, 0);
    const float4 u = load4(at);
    if constexpr (P == Precision::bf16)
      store2(at,
             make_float2(__uint_as_float(to_bf16s(u.x, u.y)), __uint_as_float(to_bf16s(u.z, u.w))));
    else
      store4(at, gpu::operand<P>(u));
  }
}
__device__ __forceinline__ void copy_bias(float* to, const float* from) {
  const int e = int(threadIdx.x) * 4;
  if (e < side) __pipeline_memcpy_async(to + e, from + e, 16);
}

// to := the warp's rows, as the first factor of weight_gradient().
__device__ __forceinline__ void store_tile(float* to, const WarpRows& t, const Rows& from) {
#pragma unroll
  for (int h = 0; h < 2; ++h)
#pragma unroll
    for (int p = 0; p < 4; ++p)
      store4(to + swizzled<Swizzle::tile>(t.first, t.t, 8 * h, 4 * p), vector(from, h, p));
}
// The same as the second: rows g and g + 8 number by number beside each other, 32 such pairs.
__device__ __forceinline__ void store_pairs(float* to, const WarpRows& t, const Rows& from) {
  const int row = int(threadIdx.x) / 32 * 8 + t.g;
#pragma unroll
  for (int p = 0; p < 4; ++p)
#pragma unroll
    for (int x = 0; x < 4; x += 2)
      store4(to + swizzled<Swizzle::pairs>(row, 2 * t.t, 0, 8 * p + x / 2),
             make_float4(from.at[0][4 * p + x], from.at[1][4 * p + x], from.at[0][4 * p + x + 1],
                         from.at[1][4 * p + x + 1]));
}

// --- products -----------------------------------------------------------------------------------

// c[j] += A B[j], of 16 inner numbers. Neighbouring instructions add to different sums: one that
// adds to the same as the one before it waits.
template <Precision P, int N>
__device__ __forceinline__ void add_step(float (&c)[N][4], const typename Factors<P>::A (&a)[2],
                                         const typename Factors<P>::B (&b)[N][2]) {
  if constexpr (P == Precision::bf16) {
#pragma unroll
    for (int j = 0; j < N; ++j) Factors<P>::add(c[j], a, b[j]);
  } else if constexpr (P == Precision::tf32x3) {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
#pragma unroll
      for (int j = 0; j < N; ++j) multiply_tf32(c[j], a[s].low, b[j][s].high);
#pragma unroll
      for (int j = 0; j < N; ++j) multiply_tf32(c[j], a[s].high, b[j][s].low);
#pragma unroll
      for (int j = 0; j < N; ++j) multiply_tf32(c[j], a[s].high, b[j][s].high);
    }
  } else {
#pragma unroll
    for (int s = 0; s < 2; ++s)
#pragma unroll
      for (int j = 0; j < N; ++j) Factors<P>::add(c[j], a[s], b[j][s]);
  }
}

// Of 16 inner numbers the lane's, v[x] the one at 4·t + x, as factors of two steps of 8.
template <Precision P, Numbers B_IS>
__device__ __forceinline__ void set_factors(typename Factors<P>::B (&b)[2], const float (&v)[4]) {
#pragma unroll
  for (int s = 0; s < 2; ++s) b[s] = Factors<P>::template of<B_IS>(RawB{{v[2 * s], v[2 * s + 1]}});
}

// c += A B, A as operand() leaves it: b(p, q, y) sets y[o] to B's factors at rows 16·p + 4·t + x
// and column 16·q + 2·g + o.
template <Precision P, int INNER, int GROUPS, class LoadB>
__device__ __forceinline__ void add_product(Columns<GROUPS>& c, const Columns<INNER>& a,
                                            const LoadB& b) {
  using F = Factors<P>;
  constexpr int most = GROUPS < 2 ? GROUPS : 2;  // groups of columns in a step, 4 tiles of 8
  constexpr int steps = GROUPS / most, left = GROUPS % most;
  float sums[steps][2 * most][4], last[left + 1][4];
  const auto sum_of = [&](int h, int n) -> float& {
    const int group = n / 4, tile = group % most * 2 + n % 2, i = 2 * h + n % 4 / 2;
    return group < steps * most ? sums[group / most][tile][i] : last[n % 2][i];
  };
  each<GROUPS>([&](int h, int n) { sum_of(h, n) = c.at[h][n]; });
#pragma unroll
  for (int p = 0; p < INNER; ++p) {
    typename F::A x[2];
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const int e = 4 * p + 2 * s;
      x[s] = F::template of<Numbers::rounded>(
          RawA{{a.at[0][e], a.at[1][e], a.at[0][e + 1], a.at[1][e + 1]}});
    }
    const auto step = [&](auto& to, int first, auto groups) {
      constexpr int N = decltype(groups)::value;
      typename F::B y[2 * N][2];
#pragma unroll
      for (int q = 0; q < N; ++q) b(p, first + q, y + 2 * q);
      add_step<P>(to, x, y);
    };
#pragma unroll
    for (int s = 0; s < steps; ++s) step(sums[s], s * most, std::integral_constant<int, most>{});
    if constexpr (left > 0) step(last, steps * most, std::integral_constant<int, left>{});
  }
  each<GROUPS>([&](int h, int n) { c.at[h][n] = sum_of(h, n); });
}

// c += A Wᵀ, W copied by_row: as many rows as c has columns.
template <Precision P, Numbers W_IS = Numbers::weights, int INNER, int GROUPS>
__device__ __forceinline__ void add_by_transposed(Columns<GROUPS>& c, const Lane& t,
                                                  const Columns<INNER>& a, const float* w) {
  using B = typename Factors<P>::B;
  add_product<P>(c, a, [&](int p, int q, B(*y)[2]) {
#pragma unroll
    for (int o = 0; o < 2; ++o) {
      const float* const at = w + swizzled<Swizzle::by_row>(2 * t.g, t.t, 16 * q + o, 4 * p);
      if constexpr (W_IS == Numbers::prepared && P == Precision::bf16) {
        const float2 u = load2(at);
        y[o][0].at[0] = __float_as_uint(u.x), y[o][1].at[0] = __float_as_uint(u.y);
      } else {
        const float4 u = load4(at);
        const float v[4] = {u.x, u.y, u.z, u.w};
        set_factors<P, W_IS>(y[o], v);
      }
    }
  });
}
// c += A W, W copied by_column: as many rows as A has columns.
template <Precision P, Numbers W_IS = Numbers::weights, int INNER>
__device__ __forceinline__ void add_by(Rows& c, const Lane& t, const Columns<INNER>& a,
                                       const float* w) {
  using B = typename Factors<P>::B;
  add_product<P>(c, a, [&](int p, int q, B(*y)[2]) {
    float v[2][4];
#pragma unroll
    for (int x = 0; x < 4; ++x) {
      const float2 u = load2(w + swizzled<Swizzle::by_column>(4 * t.t, t.g / 2, 16 * p + x, 4 * q) +
                             t.g % 2 * 2);
      v[0][x] = u.x, v[1][x] = u.y;
    }
#pragma unroll
    for (int o = 0; o < 2; ++o) set_factors<P, W_IS>(y[o], v[o]);
  });
}

// part (out,in) = Gᵀ A, of a block's rows, as store_tile() and store_pairs() left them: 32 rows of
// it from `out`, COLUMNS columns from `in`. The number t of 8 inner ones is a row of the tiles, the
// number t + 4 the row 8 below it.
template <Precision P, int ROWS, int COLUMNS>
__device__ __forceinline__ void weight_gradient(float* part, const WarpRows& t, const float* g,
                                                const float* a, int out, int in) {
  using F = Factors<P>;
  // Of 16 neighbouring rows of the gradient, 2·g and 2·g + 1 are a tile's rows g and g + 8.
  constexpr int N = COLUMNS >= 32 ? 4 : 2, groups = COLUMNS / (8 * N);
  float sums[2][groups][N][4] = {};
#pragma unroll 2
  for (int n = 0; n < ROWS; n += 16) {
    typename F::A x[2][2];
#pragma unroll
    for (int s = 0; s < 2; ++s)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const auto at = [&](int more_rows) {
          return load2(
              g + t.g % 2 * 2 +
              swizzled<Swizzle::tile>(t.t, out / 4 + t.g / 2, n + 4 * s + more_rows, 4 * i));
        };
        const float2 u = at(0), v = at(8);
        x[i][s] = F::template of<Numbers::rounded>(RawA{{u.x, u.y, v.x, v.y}});
      }
#pragma unroll
    for (int group = 0; group < groups; ++group) {
      typename F::B y[N][2];
#pragma unroll
      for (int s = 0; s < 2; ++s)
#pragma unroll
        for (int q = 0; q < N / 2; ++q) {
          const float4 u = load4(a + swizzled<Swizzle::pairs>(t.t, in / 2 + t.g, n / 2 + 4 * s,
                                                              4 * N * group + 8 * q));
          y[2 * q][s] = F::template of<Numbers::rounded>(RawB{{u.x, u.y}});
          y[2 * q + 1][s] = F::template of<Numbers::rounded>(RawB{{u.z, u.w}});
        }
#pragma unroll
      for (int i = 0; i < 2; ++i) add_step<P>(sums[i][group], x[i], y);
    }
  }
  part += (out + 2 * t.g) * side + in + 4 * t.t;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int q = 0; q < COLUMNS / 16; ++q) {
        const auto& tiles = sums[i][2 * q / N];
        const int j = 2 * q % N;
        store4(part + (16 * i + h) * side + 16 * q,
               make_float4(tiles[j][2 * h], tiles[j + 1][2 * h], tiles[j][2 * h + 1],
                           tiles[j + 1][2 * h + 1]));
      }
}

// Lanes HALF·2 apart that hold sums of the same columns add them up, each for half of the columns.
template <int HALF, int N>
__device__ __forceinline__ void share_sums(float (&sum)[N]) {
  const bool upper = int(threadIdx.x) & 2 * HALF;
#pragma unroll
  for (int c = 0; c < HALF; ++c) {
    const float low = sum[c], high = sum[HALF + c];
    const float other = __shfl_xor_sync(all_lanes, upper ? low : high, 2 * HALF);
    sum[c] = (upper ? high : low) + other;
  }
}

// The bias's gradient, the sums of G's columns, in two steps with a barrier between them.
// sums: (WARPS,64) in shared memory.
__device__ __forceinline__ void column_sums(float* sums, const WarpRows& t, const Rows& g) {
  float sum[own];
#pragma unroll
  for (int c = 0; c < own; ++c) sum[c] = g.at[0][c] + g.at[1][c];
  share_sums<8>(sum), share_sums<4>(sum), share_sums<2>(sum);
  // Now of the columns with numbers 2·g and 2·g + 1 among the lane's 16.
  store2(sums + int(threadIdx.x) / 32 * side + t.g / 2 * 16 + 4 * t.t + t.g % 2 * 2,
         make_float2(sum[0], sum[1]));
}
template <int WARPS>
__device__ __forceinline__ void bias_gradient(float* part, const float* sums, int o) {
  float sum = 0;
#pragma unroll
  for (int w = 0; w < WARPS; ++w) sum += sums[w * side + o];
  part[side * side + o] = sum;
}

// --- dropout ------------------------------------------------------------------------------------

// The bits of the lane's numbers: of at[h][4·p + x] bit 8·h + 4·(p / 2) + 16·(p % 2) + x.
__device__ __forceinline__ unsigned kept_bits_of(const WarpRows& t, const unsigned char* kept) {
  unsigned bits = 0;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (!kept || !t.has(h)) continue;
    const uint64_t row = reinterpret_cast<const uint64_t*>(kept)[t.row_of(h)] >> (4 * t.t);
    bits |= ((unsigned(row) & 0xF000Fu) | (unsigned(row >> 32) & 0xF000Fu) << 4) << (8 * h);
  }
  return bits;
}
// x *= what dropout did
__device__ __forceinline__ void drop(Rows& x, unsigned bits, float scale) {
  each([&](int h, int c) {
    const int p = c / 4, bit = 8 * h + p / 2 * 4 + p % 2 * 16 + c % 4;
    x.at[h][c] *= bits >> bit & 1 ? scale : 0.f;
  });
}

inline size_t tiles_for(int M, int rows) {
  return size_t((M + rows - 1) / rows);
}

}  // namespace focus::gpu::row_mma
