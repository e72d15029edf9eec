// Rung 15, dense backward from kept scores: where rung 14 has written the T × T scores, the
// backward is four plain products instead of five in one kernel. Two kernels:
//
//   P = exp(S − lse), dS = scale · P ∘ (dO Vᵀ ∘ keep − delta)   in tiles of 64 × 64
//   dV = (P ∘ keep)ᵀ dO,  dK = dSᵀ Q,  dQ = dS K                64 rows of one of the three a block
//
// With one sum to hold instead of three a thread of the second owns 8 × 8 numbers, so that shared
// memory does half the work for each multiply-add, blocks are small, and none waits for another's
// part of dQ. The price is memory, 4 T² bytes a head until the backward and twice as much during
// it, and five passes over it, which the products hide at lengths of some hundreds.
//
// D a multiple of 4 from 16 to 64. Predicted at (25,1,600,64): 45 µs, limited by 110 MB at 3 TB/s,
// and 90 µs, 65 % of the multiply-adds' rate: 135 µs instead of 240.
#include <cmath>

#include "cuda/attention/rungs.h"
#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"

namespace focus::gpu {

namespace {

constexpr int side = 64;  // queries and keys of a tile

// --- P and dS -----------------------------------------------------------------------------------

template <int W>
struct WeightTiles {
  static constexpr int TX = 16, TY = 8, threads = TX * TY, R = side / TY, N = side / TX;
  static constexpr int stride = W + 4;
  static constexpr size_t shared_bytes = shared_bytes_for(side * stride, side* stride, 2 * side);
};

template <int W>
__global__ void __launch_bounds__(WeightTiles<W>::threads, 3)
    dense_weights_15(Heads v, Heads o, Heads d_o, const float* lse, Scores scores, Scores kept_p,
                     Scores ds, KeepBits keep, float scale) {
  using X = WeightTiles<W>;
  constexpr int R = X::R, N = X::N, TX = X::TX, TY = X::TY;
  SharedMemory shared;
  float* d_o_tile = shared.array<float>(side * X::stride);
  float* v_tile = shared.array<float>(side * X::stride);
  float* row_sums = shared.array<float>(2 * side);  // lse in powers of 2, delta
  const Place<TX> at;
  const int T = v.T, tiles = (T + side - 1) / side;
  const int unit = int(blockIdx.x) / (tiles * tiles);
  const int i0 = int(blockIdx.x) / tiles % tiles * side, j0 = int(blockIdx.x) % tiles * side;
  copy_rows<W, side, X::threads>(d_o_tile, X::stride, d_o, d_o.of(unit), i0);
  copy_rows<W, side, X::threads>(v_tile, X::stride, v, v.of(unit), j0);
  __pipeline_commit();
  float s[R][N];
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int row = i0 + at.y + TY * i, key = j0 + at.x + TX * j;
      s[i][j] = row < T && key < T ? scores.of(unit, row)[key] : 0.f;
    }
  // Two threads a row: delta = rowsum(dO ∘ O).
  const int own = int(threadIdx.x) / 2;
  float4 sum = make_float4(0, 0, 0, 0);
  if (i0 + own < T)
    for (int d = int(threadIdx.x) % 2 * 4; d < v.D; d += 8) {
      const float4 a = load4(o.of(unit) + (i0 + own) * o.row_stride + d);
      const float4 b = load4(d_o.of(unit) + (i0 + own) * d_o.row_stride + d);
      sum.x += a.x * b.x, sum.y += a.y * b.y, sum.z += a.z * b.z, sum.w += a.w * b.w;
    }
  float delta = sum.x + sum.y + (sum.z + sum.w);
  delta += __shfl_xor_sync(all_lanes, delta, 1);
  if (threadIdx.x % 2 == 0) {
    row_sums[own] = i0 + own < T ? lse[ptrdiff_t{unit} * T + i0 + own] * log2_e : 0.f;
    row_sums[side + own] = delta;
  }
  __pipeline_wait_prior(0);
  __syncthreads();  // the tiles and the rows' sums are there for all
  float dp[R][N] = {};
  add_abt<W>(dp, d_o_tile + at.y * X::stride, TY * X::stride, v_tile + at.x * X::stride,
             TX * X::stride);
  const float to_log2 = scale * log2_e;
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int y = at.y + TY * i, row = i0 + y;
    if (row >= T) continue;
    unsigned kept[2] = {~0u, ~0u};  // bits of the tile's 64 keys
    if (keep.words) {
      const unsigned* words =
          keep.words + (size_t(unit) * size_t(T) + size_t(row)) * size_t(keep.per_row) + j0 / 32;
#pragma unroll
      for (int w = 0; w < 2; ++w)
        if (j0 + 32 * w < T) kept[w] = words[w];
    }
    float *to_p = kept_p.of(unit, row) + j0, *to_ds = ds.of(unit, row) + j0;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int x = at.x + TX * j;
      if (j0 + x >= scores.pitch()) continue;
      const bool in = j0 + x < T;  // beyond it, up to the pitch, all is 0
      const float p = in ? fast_exp2(fmaf(s[i][j], to_log2, -row_sums[y])) : 0.f;
      const float factor = !keep.words                                ? 1.f
                           : kept[j / 2] >> (at.x + TX * (j % 2)) & 1 ? keep.scale
                                                                      : 0.f;
      to_p[x] = p * factor;
      to_ds[x] = scale * p * (dp[i][j] * factor - row_sums[side + y]);
    }
  }
}

// --- the gradients ------------------------------------------------------------------------------

template <int W>
struct Products {
  static constexpr int TX = 8, TY = 8, threads = TX * TY, R = side / TY, C = W / TX;
  static constexpr int step = 20;  // 600 is a multiple of it
  static constexpr int stride = W + 4, tall = side + 4, wide = step + 4;
  // A step of the T × T matrix lies (step,64) for a product with its transpose, else (64,step).
  static constexpr int a_floats = side * wide > step* tall ? side* wide : step* tall;
  static constexpr int b_floats = step * stride;
  static constexpr size_t shared_bytes = shared_bytes_for(2 * a_floats, 2 * b_floats);
};

// Starts copying ROWS × COLUMNS numbers from (row, column) on; 0 outside of the matrix.
template <int ROWS, int COLUMNS, int THREADS>
__device__ __forceinline__ void copy_scores(float* to, int stride, const Scores& x, int unit,
                                            int row, int column) {
#pragma unroll
  for (int e = int(threadIdx.x); e < ROWS * COLUMNS / 4; e += THREADS) {
    const int r = e / (COLUMNS / 4), c = e % (COLUMNS / 4) * 4;
    float* at = to + r * stride + c;
    if (row + r < x.T && column + c < x.pitch())
      __pipeline_memcpy_async(at, x.of(unit, row + r) + column + c, 16);
    else
      store4(at, make_float4(0, 0, 0, 0));
  }
}

// A block makes 64 rows of dV, dK or dQ.
template <int W>
__global__ void __launch_bounds__(Products<W>::threads, 6)
    dense_products_15(Scores p, Scores ds, Heads q, Heads k, Heads d_o, Heads dq, Heads dk,
                      Heads dv) {
  using X = Products<W>;
  constexpr int R = X::R, C = X::C, TX = X::TX, TY = X::TY, step = X::step;
  SharedMemory shared;
  float *a = shared.array<float>(2 * X::a_floats), *b = shared.array<float>(2 * X::b_floats);
  const Place<TX> at;
  const int T = q.T, D = q.D, tiles = (T + side - 1) / side;
  const int unit = int(blockIdx.x) / (3 * tiles), which = int(blockIdx.x) / tiles % 3;
  const int row0 = int(blockIdx.x) % tiles * side;
  const bool transposed = which != 2;
  const Heads right = which == 0   ? d_o
                      : which == 1 ? q
                                   : k,
              to = which == 0   ? dv
                   : which == 1 ? dk
                                : dq;
  const Scores left = which == 0 ? p : ds;
  const float* right_head = right.of(unit);
  const auto copy = [&](int x, int stage) {
    float* a_to = a + stage * X::a_floats;
    if (transposed)
      copy_scores<step, side, X::threads>(a_to, X::tall, left, unit, x, row0);
    else
      copy_scores<side, step, X::threads>(a_to, X::wide, left, unit, row0, x);
    copy_rows<W, step, X::threads>(b + stage * X::b_floats, X::stride, right, right_head, x);
    __pipeline_commit();
  };
  float sum[R][C] = {};
  copy(0, 0);
  for (int x = 0, stage = 0; x < T; x += step, stage ^= 1) {
    __pipeline_wait_prior(0);
    __syncthreads();  // this step is there for all, and nobody reads the one before
    if (x + step < T) copy(x + step, stage ^ 1);
    const float* a_at = a + stage * X::a_floats;
    const float* b_at = b + stage * X::b_floats + at.x * vector_of<C>;
    if (transposed)
      add_atb<TX, TY, step>(sum, a_at + 4 * at.y, X::tall, b_at, X::stride);
    else
      add_ab<TX, step>(sum, a_at + at.y * X::wide, TY * X::wide, b_at, X::stride);
  }
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int y = transposed ? i / 4 * (4 * TY) + at.y * 4 + i % 4 : at.y + TY * i;
    if (row0 + y >= T) continue;
    float* row = to.of(unit) + (row0 + y) * to.row_stride;
#pragma unroll
    for (int c = 0; c < C; ++c)
      if (const int d = column<TX, C>(at.x, c); d < D) row[d] = sum[i][c];
  }
}

template <int W>
void run(const Call& c) {
  const size_t units = size_t(c.q.B) * size_t(c.q.H), tiles = size_t(tiles_of(c.q.T, side));
  float* memory = static_cast<float*>(c.workspace);
  const Scores scores{c.scores, c.q.T}, p{memory, c.q.T}, ds{memory + score_floats(c.q), c.q.T};
  using A = WeightTiles<W>;
  launch({"dense_weights_15", units * tiles * tiles, A::threads, A::shared_bytes}, c.stream,
         dense_weights_15<W>, c.v, c.o, c.d_o, c.lse, scores, p, ds, c.keep,
         1 / std::sqrt(float(c.q.D)));
  using B = Products<W>;
  launch({"dense_products_15", 3 * units * tiles, B::threads, B::shared_bytes}, c.stream,
         dense_products_15<W>, p, ds, c.q, c.k, c.d_o, c.dq, c.dk, c.dv);
}

}  // namespace

const Rung dense_15_backward{15,
                             "dense: from kept scores",
                             Pass::backward,
                             is_dense,
                             true,
                             [](const Call& c) -> std::string {
                               if (!c.scores) return "the forward kept no scores";
                               if (c.q.D > 64) return str("width ", c.q.D, ", more than 64");
                               return unsupported_width(c);
                             },
                             [](const Call& c) { return 2 * score_floats(c.q) * sizeof(float); },
                             [](Pattern, const Call& c) {
                               for_width_up_to_64(
                                   c.q.D, [&](auto width) { run<decltype(width)::value>(c); });
                             }};

}  // namespace focus::gpu
