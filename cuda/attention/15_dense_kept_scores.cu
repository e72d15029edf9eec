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
// Measured on an H100 in a training step with dropout: 85 + 98 µs; rung 05 takes 269 there. The
// second kernel is as predicted. Half of the first one's instructions are beside its product, which
// each block makes once, after waiting for all it needs.
#include <cmath>

#include "cuda/attention/keep_bits.cuh"
#include "cuda/attention/rungs.h"
#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"

namespace focus::gpu {

namespace {

constexpr int side = 64;  // queries and keys of a tile

// Copies ROWS × COLUMNS numbers of a matrix of `rows` rows, again and again from other places; 0
// outside of it. What does not change from step to step is computed once.
template <int ROWS, int COLUMNS, int THREADS>
struct Copier {
  static constexpr int vectors = COLUMNS / 4, at_once = THREADS / vectors;
  static_assert(THREADS % vectors == 0 && ROWS % at_once == 0);
  int row, column, rows;
  ptrdiff_t pitch;
  const float* from;  // the thread's first number, from row 0 and column 0 on

  __device__ Copier(const float* matrix, ptrdiff_t row_pitch, int row_count)
      : row(int(threadIdx.x) / vectors),
        column(int(threadIdx.x) % vectors * 4),
        rows(row_count),
        pitch(row_pitch),
        from(matrix + row * row_pitch + column) {}
  __device__ __forceinline__ void start(float* to, int stride, int first_row, int first_column,
                                        int columns) const {
    const float* at = from + first_row * pitch + first_column;
    to += row * stride + column;
    const bool inside = first_column + column < columns;
#pragma unroll
    for (int r = 0; r < ROWS; r += at_once) {
      if (inside && first_row + row + r < rows)
        __pipeline_memcpy_async(to + r * stride, at, 16);
      else
        store4(to + r * stride, make_float4(0, 0, 0, 0));
      at += at_once * pitch;
    }
  }
};

// --- P and dS -----------------------------------------------------------------------------------

template <int W>
struct WeightTiles {
  static constexpr int TX = 16, TY = 8, threads = TX * TY, R = side / TY, N = side / TX;
  static constexpr int stride = W + 4, s_stride = side + 4;
  static constexpr size_t shared_bytes =
      shared_bytes_for(side * stride, side* stride, side* s_stride, 2 * side, 2 * side);
};

template <int W>
__global__ void __launch_bounds__(WeightTiles<W>::threads, 4)
    dense_weights_15(Heads v, Heads o, Heads d_o, const float* lse, Scores scores, Scores kept_p,
                     Scores ds, KeepBits keep, float scale) {
  using X = WeightTiles<W>;
  constexpr int R = X::R, N = X::N, TX = X::TX, TY = X::TY;
  SharedMemory shared;
  float* d_o_tile = shared.array<float>(side * X::stride);
  float* v_tile = shared.array<float>(side * X::stride);
  float* s_tile = shared.array<float>(side * X::s_stride);
  float* row_sums = shared.array<float>(2 * side);    // lse in powers of 2, delta
  unsigned* kept = shared.array<unsigned>(2 * side);  // bits of the tile's 64 keys for each row
  const Place<TX> at;
  const int T = v.T, tiles = (T + side - 1) / side;
  const int unit = int(blockIdx.x) / (tiles * tiles);
  const int i0 = int(blockIdx.x) / tiles % tiles * side, j0 = int(blockIdx.x) % tiles * side;
  copy_rows<W, side, X::threads>(d_o_tile, X::stride, d_o, d_o.of(unit), i0);
  copy_rows<W, side, X::threads>(v_tile, X::stride, v, v.of(unit), j0);
  Copier<side, side, X::threads>(scores.of(unit, 0), scores.pitch(), T)
      .start(s_tile, X::s_stride, i0, j0, scores.pitch());
  copy_keep_bits<side, X::threads>(kept, keep, unit, T, i0, j0);
  __pipeline_commit();
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
    const ptrdiff_t to = scores.of(unit, row) - scores.data + j0 + at.x;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int key = j0 + at.x + TX * j;
      if (key >= scores.pitch()) continue;
      // Beyond T, up to the pitch, all is 0.
      const float p =
          key < T ? fast_exp2(fmaf(s_tile[y * X::s_stride + at.x + TX * j], to_log2, -row_sums[y]))
                  : 0.f;
      const float factor = !keep.words                                        ? 1.f
                           : kept[2 * y + j / 2] >> (at.x + TX * (j % 2)) & 1 ? keep.scale
                                                                              : 0.f;
      kept_p.data[to + TX * j] = p * factor;
      ds.data[to + TX * j] = scale * p * (dp[i][j] * factor - row_sums[side + y]);
    }
  }
}

// --- the gradients ------------------------------------------------------------------------------

template <int W>
struct Products {
  static constexpr int TX = 8, TY = 8, threads = TX * TY, R = side / TY, C = W / TX;
  static constexpr int step = 32;
  static constexpr int stride = W + 4, tall = side + 4, wide = step + 4;
  // A step of the T × T matrix lies (step,64) for a product with its transpose, else (64,step).
  static constexpr int a_floats = side * wide > step* tall ? side* wide : step* tall;
  static constexpr int b_floats = step * stride;
  static constexpr size_t shared_bytes = shared_bytes_for(2 * a_floats, 2 * b_floats);
};

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
  const Copier<step, side, X::threads> tall(left.of(unit, 0), left.pitch(), T);
  const Copier<side, step, X::threads> wide(left.of(unit, 0), left.pitch(), T);
  const Copier<step, W, X::threads> factor(right.of(unit), right.row_stride, T);
  const auto copy = [&](int x, int stage) {
    float* a_to = a + stage * X::a_floats;
    if (transposed)
      tall.start(a_to, X::tall, x, row0, left.pitch());
    else
      wide.start(a_to, X::wide, row0, x, left.pitch());
    factor.start(b + stage * X::b_floats, X::stride, x, 0, D);
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
