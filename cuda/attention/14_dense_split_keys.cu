// Rung 14, dense forward for few or short heads: rung 04's blocks of 128 queries and 8 × 8 numbers
// a thread, but two groups of 128 threads share a block's keys between them, each with its own
// online softmax, and put their sums together at the end. So a multiprocessor has the 8 warps of
// two blocks where there is only one block for it, and none has to be content with 4 × 8 numbers a
// thread, as rung 04's are then.
//
// If the call has memory for the scores they are kept, unscaled: rung 15 needs them.
//
// D a multiple of 4 from 16 to 64. Predicted at (25,1,600,64): rung 04's 60 % of the multiply-adds'
// rate with many heads, 70 µs instead of 85.
// Measured on an H100: 91 µs, rung 04 beside it 85. Two groups that wait for each other are no two
// blocks. In a training step, with dropout and 36 MB of scores to write, 113 µs against rung 04's
// 88, which rung 15 wins back; so it is chosen only where scores are kept.
#include <cmath>

#include "cuda/attention/keep_bits.cuh"
#include "cuda/attention/rungs.h"
#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"

namespace focus::gpu {

namespace {

template <int W>
struct Tiles {
  static constexpr int TX = 8, TY = 16, groups = 2, threads = groups * TX * TY;
  static constexpr int rows = 128, keys = 64;  // of a block; of a group's step
  static constexpr int R = rows / TY, N = keys / TX, C = W / TX;
  static constexpr int stride = W + 4, p_stride = keys + 8;
  static constexpr int kv_floats = groups * keys * stride, p_floats = groups * rows * p_stride;
  static constexpr size_t shared_bytes =
      shared_bytes_for(rows * stride, kv_floats, kv_floats, p_floats, 2 * rows, 8 * rows);
};

template <int W>
__global__ void __launch_bounds__(Tiles<W>::threads, 1)
    dense_fwd_14(Heads q, Heads k, Heads v, Heads o, float* lse, Scores scores, KeepBits keep,
                 float scale) {
  using X = Tiles<W>;
  constexpr int R = X::R, N = X::N, C = X::C, TX = X::TX, TY = X::TY;
  SharedMemory shared;
  float* q_tile = shared.array<float>(X::rows * X::stride);
  float* k_tiles = shared.array<float>(X::kv_floats);  // of both groups
  float* v_tiles = shared.array<float>(X::kv_floats);
  float* p_tiles = shared.array<float>(X::p_floats);
  float* row_ends = shared.array<float>(2 * X::rows);  // group 1's m and l
  // Dropout's bits, two words a row: of this step and the next, of both groups.
  unsigned* keep_bits = shared.array<unsigned>(8 * X::rows);
  const Place<TX> at;
  const int group = int(threadIdx.x) / (TX * TY), y0 = at.y % TY;
  const int T = q.T, tiles = (T + X::rows - 1) / X::rows;
  const int unit = int(blockIdx.x) / tiles, i0 = int(blockIdx.x) % tiles * X::rows;
  const float *k_head = k.of(unit), *v_head = v.of(unit);
  const float* k_tile = k_tiles + group * X::keys * X::stride;
  float* p_tile = p_tiles + group * X::rows * X::p_stride;
  const float* v_tile = v_tiles + group * X::keys * X::stride;
  const float to_log2 = scale * log2_e;  // exp(scale·s) = 2^(to_log2·s)

  constexpr int step = X::groups * X::keys;  // of both groups
  const auto copy_k = [&](int first) {
    copy_rows<W, step, X::threads>(k_tiles, X::stride, k, k_head, first);
    for (int g = 0; g < X::groups; ++g)
      copy_keep_bits<X::rows, X::threads>(
          keep_bits + (first / step % 2 * X::groups + g) * 2 * X::rows, keep, unit, T, i0,
          first + g * X::keys);
    __pipeline_commit();
  };
  const auto copy_v = [&](int first) {
    copy_rows<W, step, X::threads>(v_tiles, X::stride, v, v_head, first);
    __pipeline_commit();
  };
  copy_rows<W, X::rows, X::threads>(q_tile, X::stride, q, q.of(unit), i0);
  copy_k(0);
  copy_v(0);
  float m[R], l[R], out[R][C];  // m: in powers of 2; l: of the thread's own columns
#pragma unroll
  for (int i = 0; i < R; ++i) {
    m[i] = -INFINITY, l[i] = 0;
#pragma unroll
    for (int c = 0; c < C; ++c) out[i][c] = 0;
  }

  for (int both = 0; both < T; both += step) {
    const int j0 = both + group * X::keys, left = T - j0;
    __pipeline_wait_prior(1);
    __syncthreads();  // K (and Q) are there for all
    float s[R][N] = {};
    if (left > 0)
      add_abt<W>(s, q_tile + y0 * X::stride, TY * X::stride, k_tile + at.x * X::stride,
                 TX * X::stride);
    __syncthreads();  // nobody reads K any more
    copy_k(both + step);

#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int row = i0 + y0 + TY * i;
      if (scores.data && row < T) {
        float* to = scores.of(unit, row) + j0;
#pragma unroll
        for (int j = 0; j < N; ++j)
          if (at.x + TX * j < left) to[at.x + TX * j] = s[i][j];
      }
      float top = -INFINITY;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        if (at.x + TX * j >= left) s[i][j] = -INFINITY;
        top = fmaxf(top, s[i][j]);
      }
      top = fmaxf(m[i], Place<TX>::reduce_row(top, Maximum{}) * to_log2);
      // While all scores are minus infinity, all weights are 2^(−∞ − 0) = 0.
      const float base = top == -INFINITY ? 0.f : top, shrink = fast_exp2(m[i] - base);
      m[i] = top, l[i] *= shrink;
#pragma unroll
      for (int c = 0; c < C; ++c) out[i][c] *= shrink;
      const unsigned* kept =
          keep_bits + ((both / step % 2 * X::groups + group) * X::rows + y0 + TY * i) * 2;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        float p = fast_exp2(fmaf(s[i][j], to_log2, -base));
        l[i] += p;  // before dropout
        if (keep.words) p = kept[j / 4] >> (at.x + TX * (j % 4)) & 1 ? p * keep.scale : 0.f * p;
        p_tile[(y0 + TY * i) * X::p_stride + at.x + TX * j] = p;
      }
    }
    __pipeline_wait_prior(1);
    __syncthreads();  // V is there for all; P is written
    if (left > 0)
      add_ab<TX, X::keys>(out, p_tile + y0 * X::p_stride, TY * X::p_stride,
                          v_tile + at.x * vector_of<C>, X::stride);
    __syncthreads();  // nobody reads V or P any more
    copy_v(both + step);
  }
  __pipeline_wait_prior(0);

  // Group 1 hands over through the tile of P; group 0 writes.
  float* others = p_tiles;  // (128,stride)
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const float sum = Place<TX>::reduce_row(l[i], Sum{});
    l[i] = sum;
    if (group == 0) continue;
    const int y = y0 + TY * i;
#pragma unroll
    for (int c = 0; c < C; ++c) others[y * X::stride + column<TX, C>(at.x, c)] = out[i][c];
    if (at.x == 0) row_ends[y] = m[i], row_ends[X::rows + y] = sum;
  }
  __syncthreads();  // group 1's sums are there
  if (group != 0) return;
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int y = y0 + TY * i, row = i0 + y;
    if (row >= T) continue;
    const float top = fmaxf(m[i], row_ends[y]), base = top == -INFINITY ? 0.f : top;
    const float own = fast_exp2(m[i] - base), other = fast_exp2(row_ends[y] - base);
    const float sum = l[i] * own + row_ends[X::rows + y] * other;
    float* o_i = o.of(unit) + row * o.row_stride;
#pragma unroll
    for (int c = 0; c < C; ++c)
      if (const int d = column<TX, C>(at.x, c); d < q.D)
        o_i[d] = (out[i][c] * own + others[y * X::stride + d] * other) / sum;
    if (at.x == 0) lse[ptrdiff_t{unit} * T + row] = top * ln_2 + logf(sum);
  }
}

}  // namespace

const Rung dense_14_forward{
    14,
    "dense: keys split between warps",
    Pass::forward,
    is_dense,
    true,
    [](const Call& c) -> std::string {
      if (c.q.D > 64) return str("width ", c.q.D, ", more than 64");
      if (!c.scores && c.rung == 0) return "no scores are to be kept: rung 04 is faster";
      const std::string why = unsupported_width(c);
      return why.empty() ? too_little_shared_memory(Tiles<64>::shared_bytes) : why;
    },
    no_workspace,
    [](Pattern, const Call& c) {
      for_width_up_to_64(c.q.D, [&](auto width) {
        constexpr int W = decltype(width)::value;
        using X = Tiles<W>;
        launch({"dense_fwd_14", size_t(tiles_of(c.q.T, X::rows)) * size_t(c.q.B * c.q.H),
                X::threads, X::shared_bytes},
               c.stream, dense_fwd_14<W>, c.q, c.k, c.v, c.o, c.lse, Scores{c.scores, c.q.T},
               c.keep, 1 / std::sqrt(float(c.q.D)));
      });
    }};

}  // namespace focus::gpu
