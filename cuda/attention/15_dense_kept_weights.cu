// Rung 15, dense backward from kept weights: where rung 14 has left the T × T weights, the backward
// is four plain products instead of five in one kernel. Two kernels:
//
//   dS = scale · P ∘ (dO Vᵀ ∘ keep − delta)                  64 queries and a part of the keys a
//   block dV = (P ∘ keep)ᵀ dO,  dK = dSᵀ Q,  dQ = dS K             64 rows of one of the three a
//   block
//
// A thread holds 8 × 8 numbers of one product, none waits for another's part of dQ, and the weights
// for a tile are read while its product is made. The price is memory, 4 T² bytes a head until the
// backward and as much again during it.
//
// D a multiple of 4 from 16 to 64. Predicted at (25,1,600,64) in a training step, with dropout: 35
// µs for the first kernel, 85 for the second; before, they took 85 (with P ∘ keep written too)
// and 98. Measured on an H100: 48 + 101 µs by the profiler, which empties the caches before each
// kernel, and 147 together in turns with the version before (181); rung 05 takes 269. What did not
// help the second kernel: transposing P and dS on their way, so that all products are Aᵀ B and
// spare register banks, 4 bytes at a time (111 µs) or through registers (124); the first kernel
// writing P ∘ keep, dS and dSᵀ, each as its product wants it (74 + 95).
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
  const int rows = v.B * v.H * tiles, split = int(blockIdx.x) / rows;
  const int unit = int(blockIdx.x) % rows / tiles, i0 = int(blockIdx.x) % tiles * side;
  wait_for_previous();
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
  block.for_tiles(d_o, i0, v, unit, tiles * split / splits, tiles * (split + 1) / splits, meanwhile,
                  before, after);
}

// --- the gradients ------------------------------------------------------------------------------

template <int W>
struct Products {
  static constexpr int step = 32, C = W / 8, stride = W + 4, wide = step + 4;
  // A step of the T × T matrix lies (step,64) for a product with its transpose, else (64,step).
  static constexpr int a_floats = side * wide, b_floats = step * stride;
  static constexpr size_t shared_bytes = shared_bytes_for(2 * a_floats, 2 * b_floats);
};

// 64 rows of a product, from `row0` on: of `left`, or its transpose, with `right`. The two forms share
// no registers, so that nvcc can choose each one's banks.
template <int W, bool transposed, class Ready>
__device__ __forceinline__ void make_rows(SharedMemory& shared, const Scores& left,
                                          const Heads& right, const Heads& to, int unit, int row0,
                                          bool kept_only, float factor, const Ready& ready) {
  using X = Products<W>;
  constexpr int C = X::C, step = X::step;
  float *a = shared.array<float>(2 * X::a_floats), *b = shared.array<float>(2 * X::b_floats);
  const Place<8> at;
  const int T = right.T;
  using A = std::conditional_t<transposed, Copier<step, side>, Copier<side, step>>;
  const A lefts(left.of(unit, 0), left.pitch(), T, left.pitch());
  const Copier<step, W> rights(right.of(unit), right.row_stride, T, right.D);
  const auto copy_right = [&](int x, int stage) {
    rights.start(b + stage * X::b_floats, X::stride, x, 0);
  };
  const auto copy_left = [&](int x, int stage) {
    float* a_to = a + stage * X::a_floats;
    if constexpr (transposed)
      lefts.start(a_to, tall, x, row0);
    else
      lefts.start(a_to, X::wide, row0, x);
    __pipeline_commit();
  };
  float sum[8][C] = {};
  copy_right(0, 0);
  if (!kept_only) ready();
  copy_left(0, 0);
  for (int x = 0, stage = 0; x < T; x += step, stage ^= 1) {
    __pipeline_wait_prior(0);
    float* a_at = a + stage * X::a_floats;
    if (!transposed && kept_only) {
      // What dropout has not kept becomes 0, in what the thread has copied itself. NaN stays.
      float* own = a_at + lefts.row * X::wide + lefts.column;
#pragma unroll
      for (int n = 0; n < lefts.N; ++n) {
        float4 w = load4(own + n * lefts.at_once * X::wide);
        w.x = w.x < 0 ? 0 : w.x, w.y = w.y < 0 ? 0 : w.y;
        w.z = w.z < 0 ? 0 : w.z, w.w = w.w < 0 ? 0 : w.w;
        store4(own + n * lefts.at_once * X::wide, w);
      }
    }
    __syncthreads();  // this step is there for all, and nobody reads the one before
    if (x + step < T) copy_right(x + step, stage ^ 1), copy_left(x + step, stage ^ 1);
    const float* b_at = b + stage * X::b_floats + at.x * vector_of<C>;
    if constexpr (transposed)
      add_products<step>(sum, a_at + 4 * at.y, b_at, X::stride);
    else
      add_ab_products<step>(sum, a_at + at.y * X::wide, X::wide, b_at, X::stride);
  }
  if (kept_only) ready();
#pragma unroll
  for (int i = 0; i < 8; ++i)
    store_row(to, unit, row0 + (transposed ? row_of(at.y, i) : at.y + 8 * i), at.x, sum[i], factor);
}

// A block makes 64 rows of dV, dK or dQ. dK is a product with the transpose of what is in memory.
template <int W>
__global__ void __launch_bounds__(tile_threads, 6)
    dense_products_15(Scores weights, Scores ds, Heads q, Heads k, Heads d_o, Heads dq, Heads dk,
                      Heads dv, float keep_scale) {
  SharedMemory shared;
  const int tiles = (q.T + side - 1) / side;
  const int blocks = q.B * q.H * tiles;  // of each of the three
  const int which = int(blockIdx.x) / blocks, unit = int(blockIdx.x) % blocks / tiles;
  const int row0 = int(blockIdx.x) % tiles * side;
  const auto ready = [] { wait_for_previous(); };
  if (which == 1)
    make_rows<W, true>(shared, ds, q, dk, unit, row0, false, 1, ready);
  else {
    const bool values = which == 0;
    Scores left = ds;
    Heads right = k, to = dq;
    if (values) left = weights, right = d_o, to = dv;
    make_rows<W, false>(shared, left, right, to, unit, row0, values, values ? keep_scale : 1.f,
                        ready);
  }
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
  launch(early({"dense_gradients_15", blocks * size_t(splits), tile_threads,
                shared_bytes_for(A::rows_floats, 2 * A::chunk_floats, side)}),
         c.stream, dense_gradients_15<W>, c.v, c.o, c.d_o, weights, ds, splits, keep_scale,
         1 / std::sqrt(float(c.q.D)));
  using B = Products<W>;
  launch(early({"dense_products_15", 3 * blocks, tile_threads, B::shared_bytes}), c.stream,
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
