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
    dense_gradients_15(Heads v, Heads o, Heads d_o, Scores weights, Scores ds, int splits,
                       float keep_scale, float scale) {
  using X = RowTiles<W>;
  SharedMemory shared;
  const X block{{}, shared.array<float>(X::rows_floats), shared.array<float>(2 * X::chunk_floats)};
  float* deltas = shared.array<float>(side);
  const Place<8>& at = block.at;
  const int T = v.T, tiles = (T + side - 1) / side;
  const int unit = int(blockIdx.x) / (tiles * splits), split = int(blockIdx.x) % splits;
  const int i0 = int(blockIdx.x) / splits % tiles * side;
  // Of the query with the thread's number: scale · delta, delta = rowsum(dO ∘ O).
  float delta = 0;
  const auto seen = [&](int channel, const float4(&d_o_row)[X::chunk / 4]) {
    const int row = i0 + int(threadIdx.x);
    const float* o_row = o.of(unit) + row * o.row_stride + channel;
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int m = 0; m < X::chunk / 4; ++m) {
      if (row >= T || channel + 4 * m >= o.D) continue;
      const float4 a = load4(o_row + 4 * m), b = d_o_row[m];
      sum.x += a.x * b.x, sum.y += a.y * b.y, sum.z += a.z * b.z, sum.w += a.w * b.w;
    }
    delta += sum.x + sum.y + (sum.z + sum.w);
    deltas[threadIdx.x] = scale * delta;  // read after the first barrier
  };
  // The weights of the thread's places in a tile: of half of its rows read ahead, and of the others
  // while the first are used.
  float p[8][8];
  const auto load = [&](int j0, int h) {
    // Beyond the matrix any weights do: nothing comes of them.
    const float* from = weights.of(unit, 0) + min(i0 + row_of(at.y, 4 * h), weights.pitch() - 4);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int key = min(j0 + row_of(at.x, j), T - 1);
      const float4 w = load4(from + ptrdiff_t{key} * weights.pitch());
      p[4 * h][j] = w.x, p[4 * h + 1][j] = w.y, p[4 * h + 2][j] = w.z, p[4 * h + 3][j] = w.w;
    }
  };
  const auto before = [&](int j0) { load(j0, 0), load(j0, 1); };
  const float kept_scale = keep_scale * scale;
  const auto after = [&](int j0, float(&dp)[8][8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int row = i0 + row_of(at.y, i);
      const float delta = deltas[row - i0];
      float* to = ds.of(unit, row) + j0 + 4 * at.x;
      const auto gradient = [&](int j) {
        const float weight = p[i][j];
        return fabsf(weight) * fmaf(dp[i][j], weight > 0 ? kept_scale : 0.f, -delta);
      };
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float4 result = make_float4(gradient(4 * h), gradient(4 * h + 1), gradient(4 * h + 2),
                                          gradient(4 * h + 3));
        if (row < T && j0 + 4 * at.x + 32 * h < ds.pitch()) store4(to + 32 * h, result);
      }
    }
  };
  block.template for_tiles<false>(d_o, i0, v, unit, tiles * split / splits,
                                  tiles * (split + 1) / splits, seen, before, after);
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
    dense_products_15(Scores weights, Scores ds, Heads q, Heads k, Heads d_o, Heads dq, Heads dk,
                      Heads dv, float keep_scale) {
  using X = Products<W>;
  constexpr int C = X::C, step = X::step;
  SharedMemory shared;
  float *a = shared.array<float>(2 * X::a_floats), *b = shared.array<float>(2 * X::b_floats);
  const Place<8> at;
  const int T = q.T, D = q.D, tiles = (T + side - 1) / side;
  const int blocks = q.B * q.H * tiles;  // of each of the three
  const int which = int(blockIdx.x) / blocks, unit = int(blockIdx.x) % blocks / tiles;
  const int row0 = int(blockIdx.x) % tiles * side;
  const Heads right = which == 0   ? d_o
                      : which == 1 ? q
                                   : k,
              to = which == 0   ? dv
                   : which == 1 ? dk
                                : dq;
  // dS lies as its product with Q wants it. For the other two the matrix is transposed.
  const Scores left = which == 0 ? weights : ds;
  const Copier<step, side> plain(left.of(unit, 0), left.pitch(), T, left.pitch());
  Transposer<step> transposing(left.of(unit, 0), left.pitch(), T, left.pitch());
  const Copier<step, W> factor(right.of(unit), right.row_stride, T, D);
  // What dropout has not kept becomes 0. NaN stays.
  const auto arrive = [&](float* to) {
    if (which == 0) transposing.store(to, [](float w) { return w < 0 ? 0 : w; });
    if (which == 2) transposing.store(to);
  };
  const auto copy = [&](int x, int stage) {
    if (which == 1)
      plain.start(a + stage * X::a_floats, tall, x, row0);
    else
      transposing.load(row0, x);
    factor.start(b + stage * X::b_floats, X::stride, x, 0);
    __pipeline_commit();
  };
  float sum[8][C] = {};
  copy(0, 0);
  arrive(a);
  for (int x = 0, stage = 0; x < T; x += step, stage ^= 1) {
    __pipeline_wait_prior(0);
    __syncthreads();  // this step is there for all, and nobody reads the one before
    if (x + step < T) copy(x + step, stage ^ 1);
    add_products<step>(sum, a + stage * X::a_floats + 4 * at.y,
                       b + stage * X::b_floats + at.x * vector_of<C>, X::stride);
    if (x + step < T) arrive(a + (stage ^ 1) * X::a_floats);
  }
  store_rows(to, unit, row0, at, sum, which == 0 ? keep_scale : 1.f);
}

template <int W>
void run(const Call& c) {
  const int tiles = tiles_of(c.q.T, side), rows = c.q.B / c.parts * c.q.H * tiles;
  // Four blocks for each multiprocessor, each with a tile of keys at least.
  const int splits = std::clamp(4 * device().multiprocessors / std::max(1, rows), 1, tiles);
  const size_t blocks = size_t(c.q.B * c.q.H) * size_t(tiles);
  const Scores weights{c.scores, c.q.T}, ds{static_cast<float*>(c.workspace), c.q.T};
  const float keep_scale = c.keep.words ? c.keep.scale : 1.f;
  using A = RowTiles<W>;
  launch({"dense_gradients_15", blocks * size_t(splits), tile_threads,
          shared_bytes_for(A::rows_floats, 2 * A::chunk_floats, side)},
         c.stream, dense_gradients_15<W>, c.v, c.o, c.d_o, weights, ds, splits, keep_scale,
         1 / std::sqrt(float(c.q.D)));
  using B = Products<W>;
  launch({"dense_products_15", 3 * blocks, tile_threads, B::shared_bytes}, c.stream,
         dense_products_15<W>, weights, ds, c.q, c.k, c.d_o, c.dq, c.dk, c.dv, keep_scale);
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
                             [](const Call& c) { return score_floats(c.q) * sizeof(float); },
                             [](Pattern, const Call& c) {
                               for_width_up_to_64(
                                   c.q.D, [&](auto width) { run<decltype(width)::value>(c); });
                             }};

}  // namespace focus::gpu
