// Rung 14, dense forward as two plain products, with its scores kept for rung 15's backward:
//
//   S = Q Kᵀ, and of each query the largest score
//   P = 2^(S - largest), O = (P ∘ keep) V / rowsum(P)
//
// A block of 64 threads makes 64 queries' numbers with a part of the keys, so that there are enough
// blocks for few or short heads too; the second product turns scores into weights on their way to
// shared memory, and sums them up. S lies transposed, a row for each key, as that product wants it.
// The backward makes the weights again: that takes it about the time that the second product saves,
// which does not write them (51 instead of 57 µs, alone). The price is memory, 4 T² bytes a head
// until the backward, so it is chosen only where that is given.
//
// Between the kernels there is no border: a tile's second product starts when counters say that all
// parts of the tile's scores are there (1 % of a step, though two kernels more clear counters), and
// a kernel starts early, as room gets free.
//
// D a multiple of 4 from 16 to 64. At (25,1,600,64) in a training step with dropout each kernel
// alone takes 43 and 49 µs on an H200 by the profiler (45 and 59 on an H100 when scores became
// weights in memory and no kernel started early). Alone they stand still for 6 µs at their start,
// while all blocks wait for their first factors, and for as long at their end; rungs 14 and 15
// together with those times overlapped take 28 µs a layer less. What did not help: scores through
// registers to weigh them (63 µs), four parts of the keys or one.
#include <cmath>

#include "cuda/device/launch.h"
#include "cuda/fast/attention/matrix_steps.cuh"
#include "cuda/fast/attention/rungs.h"

namespace focus::gpu {

namespace {

// --- the scores ---------------------------------------------------------------------------------

// Scores are in powers of 2; a row of the matrix has a key's. tops: (splits,B·H,T) each query's
// largest.
template <int W>
__global__ void __launch_bounds__(tile_threads, blocks_at_a_time)
    dense_scores_14(Heads q, Heads k, Scores scores, float* tops, int* scored, int splits,
                    float to_log2) {
  using X = RowTiles<W>;
  SharedMemory shared;
  const X block{{}, shared.array<float>(X::rows_floats), shared.array<float>(2 * X::chunk_floats)};
  const ThreadPosition<8>& at = block.at;
  const int T = q.T, tiles = (T + side - 1) / side;
  const int rows = q.B * q.H * tiles, split = int(blockIdx.x) / rows;
  const int batch_head = int(blockIdx.x) % rows / tiles, i0 = int(blockIdx.x) % tiles * side;
  wait_for_previous();
  const int halves = (T + half - 1) / half, end = min(T, halves * (split + 1) / splits * half);
  const int first = halves * split / splits, last = halves * (split + 1) / splits;
  float top[8];  // of the thread's own columns
#pragma unroll
  for (int i = 0; i < 8; ++i) top[i] = -INFINITY;
  const int pitch = scores.pitch(), query = i0 + 4 * at.y;
  const bool inside[2] = {query < pitch, query + half < pitch};
  float* column = scores.of(batch_head, 0) + query;
  const auto after = [&](int j0, const float(&product)[8][8]) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int key = j0 + row_of(at.x, j);
      if (key >= end) continue;
      float s[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) s[i] = product[i][j] * to_log2;
      float* to = column + unsigned(key * pitch);
      if (inside[0]) store4(to, make_float4(s[0], s[1], s[2], s[3]));
      if (inside[1]) store4(to + half, make_float4(s[4], s[5], s[6], s[7]));
#pragma unroll
      for (int i = 0; i < 8; ++i) top[i] = fmaxf(top[i], s[i]);
    }
  };
  block.for_tiles(
      q, i0, k, batch_head, first, last, [] {}, [](int) {}, after);
  // The row's lanes put their columns together.
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float whole = ThreadPosition<8>::reduce_row(top[i], Maximum{});
    const int row = i0 + row_of(at.y, i);
    if (row < T && at.x == 0) tops[(ptrdiff_t{split} * q.B * q.H + batch_head) * T + row] = whole;
  }
  announce_part(scored + batch_head * tiles + i0 / side);
}

// --- the weights and the output -----------------------------------------------------------------

template <int W>
struct Values {
  static constexpr int step = 32, C = W / 8, stride = W + 4;
  static constexpr int p_floats = step * tall, v_floats = step * stride;
  static constexpr int part_floats = (8 * C + 1) * tile_threads;  // the products and weights' sums
  static constexpr size_t shared_bytes =
      shared_bytes_for(2 * p_floats, 2 * v_floats, side, 4 * side);
};

// Scores become weights on their way through shared memory, 0 where dropout does not keep them. Of
// several parts of the keys the last block to end adds the products, in order, and divides by the
// sum of all weights.
template <int W>
__global__ void __launch_bounds__(tile_threads, blocks_at_a_time)
    dense_values_14(Scores scores, Heads v, Heads o, const float* tops, int score_splits,
                    const int* scored, float* lse, float* parts, int* arrived, int splits,
                    KeepBits keep) {
  using X = Values<W>;
  constexpr int C = X::C, step = X::step;
  SharedMemory shared;
  float *p = shared.array<float>(2 * X::p_floats), *b = shared.array<float>(2 * X::v_floats);
  float* row_tops = shared.array<float>(side);
  float* row_sums = shared.array<float>(4 * side);
  const ThreadPosition<8> at;
  const int T = v.T, tiles = (T + side - 1) / side, batch_heads = v.B * v.H;
  const int rows = batch_heads * tiles, split = int(blockIdx.x) / rows;
  const int batch_head = int(blockIdx.x) % rows / tiles, tile = int(blockIdx.x) % tiles;
  const int i0 = tile * side;
  const int steps = (T + step - 1) / step;
  const int first = steps * split / splits, last = steps * (split + 1) / splits;
  using Weights = Copier<step, side>;
  const Weights weights(scores.of(batch_head, 0), scores.pitch(), T, scores.pitch());
  const Copier<step, W> values(v.of(batch_head), v.row_stride, T, v.D);
  const auto copy_values = [&](int x) {
    values.start(b + x % 2 * X::v_floats, X::stride, x * step, 0);
  };
  const auto copy_scores = [&](int x) {
    weights.start(p + x % 2 * X::p_floats, tall, x * step, i0);
    __pipeline_commit();
  };
  unsigned dropped[4] = {};  // of four queries, from the thread's first key of a step on
  const auto load_bits = [&](int x) {
    if (!keep.words) return;
    const unsigned* words = keep.words + size_t(batch_head) * size_t(T) * size_t(keep.per_row) + x;
#pragma unroll
    for (int e = 0; e < 4; ++e)
      dropped[e] = ~words[min(i0 + weights.column + e, T - 1) * keep.per_row] >> weights.row;
  };
  let_next_start();
  copy_values(first);
  load_bits(first);
  wait_for_parts(scored, batch_head * tiles + tile, batch_head * tiles + tile + 1, score_splits);
  copy_scores(first);
  // A thread a query: its largest score. Beyond T all weights are 2^-∞ = 0.
  const int own_row = i0 + int(threadIdx.x);
  float own_top = -INFINITY;
#pragma unroll 2
  for (int s = 0; s < score_splits; ++s)
    own_top = fmaxf(own_top, __ldcg(tops + (ptrdiff_t{s} * batch_heads + batch_head) * T +
                                    min(own_row, T - 1)));
  row_tops[threadIdx.x] = own_row < T ? own_top : INFINITY;
  __syncthreads();
  // A thread weighs what it copies: scores of four queries.
  const float4 tops_of = load4(row_tops + weights.column);
  float4 sums = make_float4(0, 0, 0, 0);

  float sum[8][C] = {};
  for (int x = first; x < last; ++x) {
    __pipeline_wait_prior(0);
    // What the thread has copied itself it may change before the others' copies are there.
    float* p_at = p + x % 2 * X::p_floats;
    float* own = p_at + weights.row * tall + weights.column;
    constexpr int at_once = Weights::at_once;
    const auto weigh = [&](int n) {
      float4 w = load4(own + n * at_once * tall);
      const auto weight = [&](float& score, float top, float& all, unsigned bits) {
        const float weight = fast_exp2(score - top);
        all += weight;
        score = bits & 1u << (n * at_once) ? 0 : weight;
      };
      weight(w.x, tops_of.x, sums.x, dropped[0]), weight(w.y, tops_of.y, sums.y, dropped[1]);
      weight(w.z, tops_of.z, sums.z, dropped[2]), weight(w.w, tops_of.w, sums.w, dropped[3]);
      store4(own + n * at_once * tall, w);
    };
    if ((x + 1) * step <= T && i0 + side <= scores.pitch()) {
#pragma unroll
      for (int n = 0; n < Weights::N; ++n) weigh(n);
    } else if (i0 + weights.column < scores.pitch()) {  // the others are 0
#pragma unroll 1
      for (int n = 0; n < Weights::N && x * step + weights.row + n * at_once < T; ++n) weigh(n);
    }
    __syncthreads();  // this step is there for all, and nobody reads the one before
    if (x + 1 < last) copy_values(x + 1), copy_scores(x + 1), load_bits(x + 1);
    add_products<step, C>(sum, p_at + 4 * at.y, b + x % 2 * X::v_floats + at.x * vector_of<C>,
                          X::stride);
  }
  wait_for_previous();
  // Four threads have weighed a query's keys.
  static_assert(Weights::vectors == 16);
  store4(row_sums + int(threadIdx.x) / 16 * side + weights.column, sums);
  __syncthreads();
  float own_sum = 0;
#pragma unroll
  for (int n = 0; n < 4; ++n) own_sum += row_sums[n * side + int(threadIdx.x)];

  if (splits > 1) {
    // (batch_heads,tiles,splits,8·C + 1,64)
    constexpr int numbers = X::part_floats / tile_threads;
    float* all =
        parts +
        (size_t(batch_head) * size_t(tiles) + size_t(tile)) * size_t(splits) * X::part_floats +
        threadIdx.x;
    float* own = all + split * X::part_floats;
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int c = 0; c < C; ++c) own[(i * C + c) * tile_threads] = sum[i][c];
    own[(numbers - 1) * tile_threads] = own_sum;
    __threadfence();
    __syncthreads();  // all threads' parts are written
    const bool ends_tile =
        threadIdx.x == 0 && atomicAdd(arrived + batch_head * tiles + tile, 1) == splits - 1;
    if (!__syncthreads_or(ends_tile)) return;
    __threadfence();
    own_sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int c = 0; c < C; ++c) sum[i][c] = 0;
    for (int s = 0; s < splits; ++s) {
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int c = 0; c < C; ++c) sum[i][c] += __ldcg(all + (i * C + c) * tile_threads);
      own_sum += __ldcg(all + (numbers - 1) * tile_threads);
      all += X::part_floats;
    }
  }
  if (own_row < T) lse[ptrdiff_t{batch_head} * T + own_row] = own_top * ln_2 + logf(own_sum);
  row_tops[threadIdx.x] = keep.scale / own_sum;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 8; ++i)
    store_row(o, batch_head, i0 + row_of(at.y, i), at.x, sum[i], row_tops[row_of(at.y, i)]);
}

// How many parts of the keys each product is cut into.
struct Splits {
  int scores, values;
  explicit Splits(const Call& c)
      : scores(parts_of_keys(c, tiles_of(c.q.T, side))),
        values(parts_of_keys(c, tiles_of(c.q.T, Values<64>::step))) {}
};
template <int W>
size_t part_floats(const Call& c, const Splits& s) {
  return s.values == 1 ? 0
                       : size_t(c.q.B * c.q.H) * size_t(tiles_of(c.q.T, side)) * size_t(s.values) *
                             size_t(Values<W>::part_floats);
}
size_t top_floats(const Call& c, const Splits& s) {
  return size_t(s.scores) * size_t(c.q.B) * size_t(c.q.H) * size_t(c.q.T);
}

template <int W>
void run(const Call& c) {
  const Splits splits(c);
  const size_t blocks = size_t(c.q.B * c.q.H) * size_t(tiles_of(c.q.T, side));
  const Scores scores{c.scores, c.q.T};
  const float to_log2 = log2_e * c.scale();  // exp(scale·s) = 2^(to_log2·s)
  float *parts = static_cast<float*>(c.workspace), *tops = parts + part_floats<W>(c, splits);
  int *scored = reinterpret_cast<int*>(tops + top_floats(c, splits)), *arrived = scored + blocks;
  launch(early({"clear_parts", 1, 256}), c.stream, clear_parts, scored, int(2 * blocks));
  using A = RowTiles<W>;
  launch(early({"dense_scores_14", blocks * size_t(splits.scores), tile_threads,
                shared_bytes_for(A::rows_floats, 2 * A::chunk_floats)}),
         c.stream, dense_scores_14<W>, c.q, c.k, scores, tops, scored, splits.scores, to_log2);
  using B = Values<W>;
  launch(early({"dense_values_14", blocks * size_t(splits.values), tile_threads, B::shared_bytes}),
         c.stream, dense_values_14<W>, scores, c.v, c.o, tops, splits.scores, scored, c.lse, parts,
         arrived, splits.values, c.keep.words ? c.keep : KeepBits{});
}

}  // namespace

const Rung dense_14_forward{
    14,
    "dense: two products, scores kept",
    Pass::forward,
    is_dense,
    true,
    [](const Call& c) -> std::string {
      return c.scores ? unsupported_with_scores(c) : "no memory for the scores";
    },
    [](const Call& c) {
      const Splits splits(c);
      size_t floats = top_floats(c, splits);
      for_width_up_to_64(
          c.q.D, [&](auto width) { floats += part_floats<decltype(width)::value>(c, splits); });
      return 4 * (floats + 2 * size_t(c.q.B * c.q.H) * size_t(tiles_of(c.q.T, side)));
    },
    [](Pattern, const Call& c) {
      for_width_up_to_64(c.q.D, [&](auto width) { run<decltype(width)::value>(c); });
    },
    {.dropout = true}};

}  // namespace focus::gpu
