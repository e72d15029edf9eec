// Rung 15, dense backward from kept scores: where rung 14 has left the T × T scores, the backward
// is four plain products instead of five in one kernel. Two kernels:
//
//   P = 2^(S - lse), dS = scale · P ∘ (dO Vᵀ ∘ keep − delta)  64 queries and a part of the keys a
//                                                             block
//   dV = (P ∘ keep)ᵀ dO,  dQ = dS K,  dK = dSᵀ Q              64 rows of one of the three a block
//
// A thread holds 8 × 8 numbers of one product, and none waits for another's part of dQ. The second
// kernel's blocks come as the first one's end, in the order in which they can start: those of dV
// need no dS (4 % of a step), those of dQ the rows of 64 queries, those of dK all rows of a head.
// The price is memory, 4 T² bytes a head until the backward and as much again during it.
//
// D a multiple of 4 from 16 to 64. At (25,1,600,64) in a training step with dropout each kernel
// alone takes 57 and 103 µs on an H200 by the profiler, more than the 50 and 99 on an H100 when
// blocks were fewer and none started early, but not together (rung 14). A multiply-add in the
// second kernel takes 75 % of the cycles (71 when both forms of product shared registers), until
// its last 15 µs, in which few warps are left. What did not help it: transposing P and dS on their
// way, so that all products are Aᵀ B and spare register banks, 4 bytes at a time (111 µs) or
// through registers (124); the first kernel writing P ∘ keep, dS and dSᵀ, each as its product wants
// it (74 + 95); in A B the next step's numbers of A loaded as the last ones are used (60 % of the
// multiply-adds wait for banks, instead of 16); two parts of the keys in the first kernel (4 % of a
// step more).
#include <cmath>
#include <type_traits>

#include "cuda/device/launch.h"
#include "cuda/fast/attention/matrix_steps.cuh"
#include "cuda/fast/attention/rungs.h"

namespace focus::gpu {

namespace {

// --- dS -----------------------------------------------------------------------------------------

// A row of the scores has a key's, a row of dS a query's.
template <int W>
__global__ void __launch_bounds__(tile_threads, blocks_at_a_time)
    dense_gradients_15(Heads v, Heads o, Heads d_o, const float* lse, Scores scores, Scores ds,
                       int* made, int splits, KeepBits keep, float scale) {
  using X = RowTiles<W>;
  SharedMemory shared;
  const X block{{}, shared.array<float>(X::rows_floats), shared.array<float>(2 * X::chunk_floats)};
  float *deltas = shared.array<float>(side), *row_lse = shared.array<float>(side);
  const ThreadPosition<8>& at = block.at;
  const int T = v.T, tiles = (T + side - 1) / side;
  const int rows = v.B * v.H * tiles, split = int(blockIdx.x) / rows;
  const int batch_head = int(blockIdx.x) % rows / tiles, i0 = int(blockIdx.x) % tiles * side;
  const int halves = (T + half - 1) / half;
  const int first = halves * split / splits, last = halves * (split + 1) / splits;
  const int pitch = scores.pitch(), end = last == halves ? pitch : last * half;
  wait_for_previous();
  // scale · delta, delta = rowsum(dO ∘ O): eight lanes a query, so that a warp reads whole lines. A
  // thread a query took 10 µs longer; after the first product, 2 µs.
  const auto make_deltas = [&] {
    const int eighth = int(threadIdx.x) % 8,
              of = int(threadIdx.x) / 32 * half + int(threadIdx.x) % 32 / 8;
    const float* o_at = o.of(batch_head) + (i0 + of) * o.row_stride + 4 * eighth;
    const float* d_o_at = d_o.of(batch_head) + (i0 + of) * d_o.row_stride + 4 * eighth;
#pragma unroll 4
    for (int n = 0; n < half; n += 4) {
      float sum = 0;
#pragma unroll
      for (int d = 0; d < W; d += 32)
        if (i0 + of + n < T && d + 4 * eighth < v.D) {
          const float4 a = load4(o_at + d), b = load4(d_o_at + d);
          sum += a.x * b.x + a.y * b.y + (a.z * b.z + a.w * b.w);
        }
#pragma unroll
      for (int lanes = 1; lanes < 8; lanes *= 2) sum += __shfl_xor_sync(all_lanes, sum, lanes);
      if (eighth == 0) deltas[of + n] = scale * sum;
      o_at += 4 * o.row_stride, d_o_at += 4 * d_o.row_stride;
    }
    const int row = i0 + int(threadIdx.x);
    row_lse[threadIdx.x] = row < T ? lse[ptrdiff_t{batch_head} * T + row] * log2_e : 0.f;
  };
  // Which of a tile's weights are kept: a lane has those of one of its warp's 32 queries.
  const int lane = int(threadIdx.x) % 32,
            of_lane = lane % 16 + lane / 16 * 32 + int(threadIdx.x) / 32 * 16;
  const unsigned* of_row = keep.words;
  if (of_row)
    of_row +=
        (size_t(batch_head) * size_t(T) + size_t(min(i0 + of_lane, T - 1))) * size_t(keep.per_row);
  unsigned kept[2] = {~0u, ~0u};
  // A thread's scores come in four parts, 4 × 4 each: the first one ahead of the product, the next
  // ones each while the one before it is used. All at once, ahead, they would take the registers of
  // two blocks.
  const float* from = scores.of(batch_head, 0);
  float* to = ds.of(batch_head, 0);
  const auto load_part = [&](float(&s)[4][4], int j0, int part) {
    // Beyond the matrix any scores do: nothing comes of them.
    const int column = min(i0 + 4 * at.y + part / 2 * half, pitch - 4);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int key = min(j0 + 4 * at.x + part % 2 * half + j, T - 1);
      load_vector<4>(s[j], from + unsigned(key * pitch + column));
    }
  };
  float s[2][4][4];
  const auto before = [&](int j0) {
    const int first_of_row = min(j0 + int(threadIdx.x), T - 1) * pitch;
    prefetch(from + unsigned(first_of_row + i0));
    prefetch(from + unsigned(first_of_row + min(i0 + half, pitch - 4)));
    load_part(s[0], j0, 0);
    if (keep.words)
#pragma unroll
      for (int h = 0; h < 2; ++h) kept[h] = of_row[min(j0 / 32 + h, keep.per_row - 1)];
  };
  const float kept_scale = keep.scale * scale;
  const auto after = [&](int j0, float(&dp)[8][8]) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      if (part + 1 < 4) load_part(s[(part + 1) % 2], j0, part + 1);
      const int key = j0 + 4 * at.x + part % 2 * half;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int i = part / 2 * 4 + e, row = i0 + row_of(at.y, i);
        const float delta = deltas[row - i0], lse_of = row_lse[row - i0];
        const unsigned bits =
            __shfl_sync(all_lanes, kept[part % 2], 4 * at.row_in_warp + e + part / 2 * 16) >>
            4 * at.x;
        const auto gradient = [&](int j) {
          return fast_exp2(s[part % 2][j][e] - lse_of) *
                 fmaf(dp[i][part % 2 * 4 + j], bits & 1u << j ? kept_scale : 0.f, -delta);
        };
        const float4 result = make_float4(gradient(0), gradient(1), gradient(2), gradient(3));
        if (row < T && key < end) store4(to + unsigned(row * pitch + key), result);
      }
    }
  };
  block.for_tiles(d_o, i0, v, batch_head, first, last, make_deltas, before, after);
  announce_part(made + batch_head * tiles + i0 / side);
}

// --- the gradients ------------------------------------------------------------------------------

template <int W>
struct Products {
  static constexpr int step = 32, C = W / 8, stride = W + 4, wide = step + 4;
  // A step of the T × T matrix lies (step,64) for a product with its transpose, else (64,step).
  static constexpr int a_floats = side * wide, b_floats = step * stride;
  static constexpr size_t shared_bytes = shared_bytes_for(2 * a_floats, 2 * b_floats);
};

// 64 rows of a product, from `row0` on: of `left`, or its transpose, with `right`. The two forms
// share no registers, so that nvcc can choose each one's banks.
template <int W, bool transposed, class Ready>
__device__ __forceinline__ void make_rows(SharedMemory& shared, const Scores& left,
                                          const Heads& right, const Heads& to, int batch_head,
                                          int row0, bool weigh, const float* lse,
                                          const KeepBits& keep, const Ready& ready) {
  using X = Products<W>;
  constexpr int C = X::C, step = X::step;
  float *a = shared.array<float>(2 * X::a_floats), *b = shared.array<float>(2 * X::b_floats);
  const ThreadPosition<8> at;
  const int T = right.T;
  using A = std::conditional_t<transposed, Copier<step, side>, Copier<side, step>>;
  const A lefts(left.of(batch_head, 0), left.pitch(), T, left.pitch());
  const Copier<step, W> rights(right.of(batch_head), right.row_stride, T, right.D);
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
  // The queries of a step's weights: logarithms in powers of 2, beyond T such that weights are 0;
  // and which keys dropout does not keep, from the thread's first one on.
  float lse_of[4];
  unsigned dropped[4] = {};
  const auto load_rows = [&](int x) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int query = x + lefts.column + e, row = min(query, T - 1);
      lse_of[e] = query < T ? lse[ptrdiff_t{batch_head} * T + row] * log2_e : INFINITY;
      if (keep.words)
        dropped[e] =
            ~keep.words[(size_t(batch_head) * size_t(T) + size_t(row)) * size_t(keep.per_row) +
                        size_t(min((row0 + lefts.row) / 32, keep.per_row - 1))] >>
            lefts.row % 32;
    }
  };
  float sum[8][C] = {};
  copy_right(0, 0);
  if (weigh) load_rows(0);
  ready();
  copy_left(0, 0);
  for (int x = 0, stage = 0; x < T; x += step, stage ^= 1) {
    __pipeline_wait_prior(0);
    float* a_at = a + stage * X::a_floats;
    if (!transposed && weigh) {
      // What the thread has copied itself becomes weights, 0 where dropout does not keep them.
      float* own = a_at + lefts.row * X::wide + lefts.column;
#pragma unroll
      for (int n = 0; n < lefts.N; ++n) {
        float4 w = load4(own + n * lefts.at_once * X::wide);
        const auto weight = [&](float score, int e) {
          const float weight = fast_exp2(score - lse_of[e]);
          return dropped[e] & 1u << (n * lefts.at_once) ? 0 : weight;
        };
        w = make_float4(weight(w.x, 0), weight(w.y, 1), weight(w.z, 2), weight(w.w, 3));
        store4(own + n * lefts.at_once * X::wide, w);
      }
      if (x + step < T) load_rows(x + step);
    }
    __syncthreads();  // this step is there for all, and nobody reads the one before
    if (x + step < T) copy_right(x + step, stage ^ 1), copy_left(x + step, stage ^ 1);
    const float* b_at = b + stage * X::b_floats + at.x * vector_of<C>;
    if constexpr (transposed)
      add_products<step, C>(sum, a_at + 4 * at.y, b_at, X::stride);
    else
      add_ab_products<step>(sum, a_at + at.y * X::wide, X::wide, b_at, X::stride);
  }
  wait_for_previous();
#pragma unroll
  for (int i = 0; i < 8; ++i)
    store_row(to, batch_head, row0 + (transposed ? row_of(at.y, i) : at.y + 8 * i), at.x, sum[i],
              weigh ? keep.scale : 1.f);
}

// A block makes 64 rows of dV, dQ or dK. dK is a product with the transpose of what is in memory.
template <int W>
__global__ void __launch_bounds__(tile_threads, blocks_at_a_time)
    dense_products_15(Scores scores, Scores ds, const int* made, int splits, const float* lse,
                      Heads q, Heads k, Heads d_o, Heads dq, Heads dk, Heads dv, KeepBits keep) {
  SharedMemory shared;
  const int tiles = (q.T + side - 1) / side;
  const int blocks = q.B * q.H * tiles;  // of each of the three
  const int which = int(blockIdx.x) / blocks, batch_head = int(blockIdx.x) % blocks / tiles;
  const int row0 = int(blockIdx.x) % tiles * side;
  let_next_start();
  if (which == 2) {
    make_rows<W, true>(shared, ds, q, dk, batch_head, row0, false, lse, keep, [&] {
      wait_for_parts(made, batch_head * tiles, (batch_head + 1) * tiles, splits);
    });
  } else {
    Scores left = ds;
    Heads right = k, to = dq;
    if (which == 0) left = scores, right = d_o, to = dv;
    make_rows<W, false>(shared, left, right, to, batch_head, row0, which == 0, lse, keep, [&] {
      const int tile = batch_head * tiles + row0 / side;
      if (which == 1) wait_for_parts(made, tile, tile + 1, splits);
    });
  }
}

template <int W>
void run(const Call& c) {
  const int tiles = tiles_of(c.q.T, side), splits = parts_of_keys(c, tiles);
  const size_t blocks = size_t(c.q.B * c.q.H) * size_t(tiles);
  const KeepBits keep = c.keep.words ? c.keep : KeepBits{};
  const Scores scores{c.scores, c.q.T}, ds{static_cast<float*>(c.workspace), c.q.T};
  const float scale = c.scale();
  int* made = reinterpret_cast<int*>(ds.data + score_floats(c.q));
  launch(early({"clear_parts", 1, 256}), c.stream, clear_parts, made, int(blocks));
  using A = RowTiles<W>;
  launch(early({"dense_gradients_15", blocks * size_t(splits), tile_threads,
                shared_bytes_for(A::rows_floats, 2 * A::chunk_floats, side, side)}),
         c.stream, dense_gradients_15<W>, c.v, c.o, c.d_o, c.lse, scores, ds, made, splits, keep,
         scale);
  using B = Products<W>;
  launch(early({"dense_products_15", 3 * blocks, tile_threads, B::shared_bytes}), c.stream,
         dense_products_15<W>, scores, ds, made, splits, c.lse, c.q, c.k, c.d_o, c.dq, c.dk, c.dv,
         keep);
}

}  // namespace

const Rung dense_15_backward{
    15,
    "dense: from kept scores",
    Pass::backward,
    is_dense,
    true,
    [](const Call& c) -> std::string {
      return c.scores ? unsupported_with_scores(c) : "the forward kept no scores";
    },
    [](const Call& c) {
      return (score_floats(c.q) + size_t(c.q.B * c.q.H) * size_t(tiles_of(c.q.T, side))) *
             sizeof(float);
    },
    [](Pattern, const Call& c) {
      for_width_up_to_64(c.q.D, [&](auto width) { run<decltype(width)::value>(c); });
    },
    {.dropout = true, .after_rung = 14}};

}  // namespace focus::gpu
