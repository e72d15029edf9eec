// Rung 15, dense backward from kept weights: TODO
#include <algorithm>
#include <cmath>

#include "cuda/attention/matrix_steps.cuh"
#include "cuda/attention/rungs.h"
#include "cuda/device/launch.h"

namespace focus::gpu {

namespace {

// --- dS -----------------------------------------------------------------------------------------

// keep_scale: 1 without dropout. A row of the weights has a key's, negative where dropout has not
// kept them; a row of dS has a query's.
template <int W>
__global__ void __launch_bounds__(tile_threads, 4)
    dense_gradients_15(Heads v, Heads o, Heads d_o, Scores weights, Scores kept, Scores ds,
                       Scores ds_t, int splits, float keep_scale, float scale) {
  using X = RowTiles<W>;
  SharedMemory shared;
  const X block{{}, shared.array<float>(X::rows_floats), shared.array<float>(2 * X::chunk_floats)};
  float* deltas = shared.array<float>(side);
  const Place<8>& at = block.at;
  const int T = v.T, tiles = (T + side - 1) / side;
  const int unit = int(blockIdx.x) / (tiles * splits), split = int(blockIdx.x) % splits;
  const int i0 = int(blockIdx.x) / splits % tiles * side;
  const auto meanwhile = [&] {
    // A thread a query: scale · delta, delta = rowsum(dO ∘ O). Read after the first barrier.
    float4 sum = make_float4(0, 0, 0, 0);
    const int row = i0 + int(threadIdx.x);
    if (row < T)
      for (int d = 0; d < v.D; d += 4) {
        const float4 a = load4(o.of(unit) + row * o.row_stride + d);
        const float4 b = load4(d_o.of(unit) + row * d_o.row_stride + d);
        sum.x += a.x * b.x, sum.y += a.y * b.y, sum.z += a.z * b.z, sum.w += a.w * b.w;
      }
    deltas[threadIdx.x] = scale * (sum.x + sum.y + (sum.z + sum.w));
  };
  float p[8][8];  // the weights of the thread's places in a tile, read ahead
  const auto before = [&](int j0) {
    // Beyond the matrix any weights do: nothing comes of them.
    const float* from = weights.of(unit, 0);
    const int column[2] = {min(i0 + 4 * at.y, weights.pitch() - 4),
                           min(i0 + 4 * at.y + 32, weights.pitch() - 4)};
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const ptrdiff_t row = ptrdiff_t{min(j0 + row_of(at.x, j), T - 1)} * weights.pitch();
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float4 w = load4(from + (row + column[h]));
        p[4 * h][j] = w.x, p[4 * h + 1][j] = w.y, p[4 * h + 2][j] = w.z, p[4 * h + 3][j] = w.w;
      }
    }
  };
  const float kept_scale = keep_scale * scale;
  const auto after = [&](int j0, float(&dp)[8][8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float delta = deltas[row_of(at.y, i)];
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const bool keeps = !(p[i][j] < 0);  // NaN stays
        dp[i][j] = fabsf(p[i][j]) * fmaf(dp[i][j], keeps ? kept_scale : 0.f, -delta);
        p[i][j] = keeps ? p[i][j] : 0.f;
      }
    }
    const auto store_row_of = [&](const Scores& to, const float(&x)[8][8], int i) {
      const int row = i0 + row_of(at.y, i);
      float* at_row = to.of(unit, row) + j0 + 4 * at.x;
      if (row < T && j0 + 4 * at.x < to.pitch())
        store4(at_row, make_float4(x[i][0], x[i][1], x[i][2], x[i][3]));
      if (row < T && j0 + 4 * at.x + 32 < to.pitch())
        store4(at_row + 32, make_float4(x[i][4], x[i][5], x[i][6], x[i][7]));
    };
#pragma unroll
    for (int i = 0; i < 8; ++i) store_row_of(kept, p, i), store_row_of(ds, dp, i);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int key = j0 + row_of(at.x, j);
      float* at_row = ds_t.of(unit, key) + i0 + 4 * at.y;
      if (key < T && i0 + 4 * at.y < ds_t.pitch())
        store4(at_row, make_float4(dp[0][j], dp[1][j], dp[2][j], dp[3][j]));
      if (key < T && i0 + 4 * at.y + 32 < ds_t.pitch())
        store4(at_row + 32, make_float4(dp[4][j], dp[5][j], dp[6][j], dp[7][j]));
    }
  };
  block.for_tiles(d_o, i0, v, unit, tiles * split / splits, tiles * (split + 1) / splits, meanwhile,
                  before, after);
}

// --- the gradients ------------------------------------------------------------------------------

template <int W>
struct Products {
  static constexpr int step = 32, C = W / 8, stride = W + 4;
  static constexpr int a_floats = step * tall, b_floats = step * stride;
  static constexpr size_t shared_bytes = shared_bytes_for(2 * a_floats, 2 * b_floats);
};

// A block makes 64 rows of dV, dK or dQ.
template <int W>
__global__ void __launch_bounds__(tile_threads, 6)
    dense_products_15(Scores kept, Scores ds, Scores ds_t, Heads q, Heads k, Heads d_o, Heads dq,
                      Heads dk, Heads dv, float keep_scale) {
  using X = Products<W>;
  constexpr int C = X::C, step = X::step;
  SharedMemory shared;
  float *a = shared.array<float>(2 * X::a_floats), *b = shared.array<float>(2 * X::b_floats);
  const Place<8> at;
  const int T = q.T, tiles = (T + side - 1) / side;
  const int unit = int(blockIdx.x) / (3 * tiles), which = int(blockIdx.x) / tiles % 3;
  const int row0 = int(blockIdx.x) % tiles * side;
  const Scores left = which == 0 ? kept : which == 1 ? ds : ds_t;
  const Heads right = which == 0 ? d_o : which == 1 ? q : k;
  const Heads to = which == 0 ? dv : which == 1 ? dk : dq;
  const Copier<step, side> columns(left.of(unit, 0), left.pitch(), T, left.pitch());
  const Copier<step, W> rows(right.of(unit), right.row_stride, T, right.D);
  const auto copy = [&](int x) {
    columns.start(a + x % 2 * X::a_floats, tall, x * step, row0);
    rows.start(b + x % 2 * X::b_floats, X::stride, x * step, 0);
    __pipeline_commit();
  };
  float sum[8][C] = {};
  copy(0);
  for (int x = 0; x * step < T; ++x) {
    __pipeline_wait_prior(0);
    __syncthreads();  // this step is there for all, and nobody reads the one before
    if ((x + 1) * step < T) copy(x + 1);
    add_products<step>(sum, a + x % 2 * X::a_floats + 4 * at.y,
                       b + x % 2 * X::b_floats + at.x * vector_of<C>, X::stride);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i)
    store_row(to, unit, row0 + row_of(at.y, i), at.x, sum[i], which == 0 ? keep_scale : 1.f);
}

template <int W>
void run(const Call& c) {
  const int tiles = tiles_of(c.q.T, side), rows = c.q.B / c.parts * c.q.H * tiles;
  // Four blocks for each multiprocessor, each with a tile of keys at least.
  const int splits = std::clamp(4 * device().multiprocessors / std::max(1, rows), 1, tiles);
  const size_t blocks = size_t(c.q.B * c.q.H) * size_t(tiles);
  const Scores weights{c.scores, c.q.T}, kept{static_cast<float*>(c.workspace), c.q.T},
      ds{kept.data + score_floats(c.q), c.q.T}, ds_t{ds.data + score_floats(c.q), c.q.T};
  const float keep_scale = c.keep.words ? c.keep.scale : 1.f;
  using A = RowTiles<W>;
  launch({"dense_gradients_15", blocks * size_t(splits), tile_threads,
          shared_bytes_for(A::rows_floats, 2 * A::chunk_floats, side)},
         c.stream, dense_gradients_15<W>, c.v, c.o, c.d_o, weights, kept, ds, ds_t, splits,
         keep_scale, 1 / std::sqrt(float(c.q.D)));
  using B = Products<W>;
  launch({"dense_products_15", 3 * blocks, tile_threads, B::shared_bytes}, c.stream,
         dense_products_15<W>, kept, ds, ds_t, c.q, c.k, c.d_o, c.dq, c.dk, c.dv, keep_scale);
}

}  // namespace

const Rung dense_15_backward{15,
                             "dense: from kept weights",
                             Pass::backward,
                             is_dense,
                             true,
                             [](const Call& c) -> std::string {
                               if (!c.scores) return "the forward kept no weights";
                               if (c.q.D > 64) return str("width ", c.q.D, ", more than 64");
                               return unsupported_width(c);
                             },
                             [](const Call& c) { return 3 * score_floats(c.q) * sizeof(float); },
                             [](Pattern, const Call& c) {
                               for_width_up_to_64(
                                   c.q.D, [&](auto width) { run<decltype(width)::value>(c); });
                             }};

}  // namespace focus::gpu
