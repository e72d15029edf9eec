// Rung 04, dense forward: rung 03's online softmax with rung 02's register tiles. A block owns 128
// queries; 16 × TX threads hold 8 rows of S = Q Kᵀ and of O each, so that 16 shared loads feed 256
// multiply-adds. A query's row lies in one warp: its maximum needs shuffles only. P goes through
// shared memory to be multiplied with V. The next K arrives while O is computed, the next V while S
// is; two blocks on a multiprocessor fill each other's pauses.
//
// Causal: key tiles beyond a block's last query are not visited.
// D a multiple of 4 from 16 to 128. Predicted at (16,16,2048,64): shared loads take half of the
// cycles of the multiply-adds, which with softmax and barriers get 60 % of 51 TFLOP/s: 9 ms.
// Measured: 6.9 ms, 40 TFLOP/s, 60 % of the 66.9 that the clock allows.
#include <cmath>

#include "cuda/attention/rungs.h"
#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"

namespace focus::gpu {

namespace {

// Rows: queries of a block; 64 instead of 128 where there are too few for two blocks on each
// multiprocessor.
template <int W, int Rows>
struct Tiles {
  static constexpr int TX = W == 128 ? 16 : 8, TY = 16, threads = TX * TY;
  static constexpr int rows = Rows, keys = 64;  // of a block, of a step
  static constexpr int R = rows / TY, N = keys / TX, C = W / TX;
  static constexpr int stride = W + 4, p_stride = keys + 8;
  static constexpr size_t shared_bytes =
      shared_bytes_for(rows * stride, keys* stride, keys* stride, rows* p_stride);
};

template <int W, int Rows>
__global__ void __launch_bounds__(Tiles<W, Rows>::threads, W == 128 ? 1 : 2)
    dense_fwd_04(Heads q, Heads k, Heads v, Heads o, float* lse, KeepBits keep, bool causal,
                 float scale) {
  using X = Tiles<W, Rows>;
  constexpr int R = X::R, N = X::N, C = X::C, TX = X::TX, TY = X::TY;
  SharedMemory shared;
  float* q_tile = shared.array<float>(X::rows * X::stride);
  float* k_tile = shared.array<float>(X::keys * X::stride);
  float* v_tile = shared.array<float>(X::keys * X::stride);
  float* p_tile = shared.array<float>(X::rows * X::p_stride);
  const ThreadPosition<TX> at;
  const int T = q.T, tiles = (T + X::rows - 1) / X::rows;
  const int batch_head = int(blockIdx.x) / tiles, i0 = int(blockIdx.x) % tiles * X::rows;
  const float *k_head = k.of(batch_head), *v_head = v.of(batch_head);
  const float to_log2 = scale * log2_e;  // exp(scale·s) = 2^(to_log2·s)

  copy_rows<W, X::rows, X::threads>(q_tile, X::stride, q, q.of(batch_head), i0);
  copy_rows<W, X::keys, X::threads>(k_tile, X::stride, k, k_head, 0);
  __pipeline_commit();
  copy_rows<W, X::keys, X::threads>(v_tile, X::stride, v, v_head, 0);
  __pipeline_commit();

  float m[R], l[R], out[R][C];  // m: in powers of 2; l: of the thread's own columns
#pragma unroll
  for (int i = 0; i < R; ++i) {
    m[i] = -INFINITY, l[i] = 0;
#pragma unroll
    for (int c = 0; c < C; ++c) out[i][c] = 0;
  }

  const int seen = causal ? min(T, i0 + X::rows) : T;  // by one of the block's queries
  for (int j0 = 0; j0 < seen; j0 += X::keys) {
    __pipeline_wait_prior(1);
    __syncthreads();  // K (and Q) are there for all
    float s[R][N];
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j) s[i][j] = 0;
    add_abt<W>(s, q_tile + at.y * X::stride, TY * X::stride, k_tile + at.x * X::stride,
               TX * X::stride);
    __syncthreads();  // nobody reads K any more
    copy_rows<W, X::keys, X::threads>(k_tile, X::stride, k, k_head, j0 + X::keys);
    __pipeline_commit();

    if (j0 + X::keys > T) {
#pragma unroll
      for (int j = 0; j < N; ++j)
        if (j0 + at.x + TX * j >= T)
#pragma unroll
          for (int i = 0; i < R; ++i) s[i][j] = -INFINITY;
    }
    if (causal && j0 + X::keys > i0) {  // not all of the block's queries see all of the step's keys
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int j = 0; j < N; ++j)
          if (j0 + at.x + TX * j > i0 + at.y + TY * i) s[i][j] = -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < R; ++i) {
      //@ gap 09 row-softmax
      float top = s[i][0];
#pragma unroll
      for (int j = 1; j < N; ++j) top = fmaxf(top, s[i][j]);
      top = fmaxf(m[i], ThreadPosition<TX>::reduce_row(top, Maximum{}) * to_log2);
      // While all scores are minus infinity, all weights are 2^(−∞ − 0) = 0.
      const float base = top == -INFINITY ? 0.f : top, shrink = fast_exp2(m[i] - base);
      m[i] = top, l[i] *= shrink;
#pragma unroll
      for (int c = 0; c < C; ++c) out[i][c] *= shrink;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        float p = fast_exp2(fmaf(s[i][j], to_log2, -base));
        l[i] += p;
        if (keep.words) {  // the sum is of the weights before dropout
          const int row = min(i0 + at.y + TY * i, T - 1), key = min(j0 + at.x + TX * j, T - 1);
          p *= keep.factor(size_t(batch_head) * size_t(T) + size_t(row), key);
        }
        p_tile[(at.y + TY * i) * X::p_stride + at.x + TX * j] = p;
      }
      //@ end
    }
    __pipeline_wait_prior(1);
    __syncthreads();  // V is there for all; P is written (each warp reads its own rows)
    add_ab<TX, X::keys>(out, p_tile + at.y * X::p_stride, TY * X::p_stride,
                        v_tile + at.x * vector_of<C>, X::stride);
    __syncthreads();  // nobody reads V or P any more
    copy_rows<W, X::keys, X::threads>(v_tile, X::stride, v, v_head, j0 + X::keys);
    __pipeline_commit();
  }
  __pipeline_wait_prior(0);

#pragma unroll
  for (int i = 0; i < R; ++i) {
    const float sum = ThreadPosition<TX>::reduce_row(l[i], Sum{});
    const int row = i0 + at.y + TY * i;
    if (row >= T) continue;
    float* o_i = o.of(batch_head) + row * o.row_stride;
#pragma unroll
    for (int c = 0; c < C; ++c)
      if (const int d = column<TX, C>(at.x, c); d < q.D) o_i[d] = out[i][c] / sum;
    if (at.x == 0) lse[ptrdiff_t{batch_head} * T + row] = m[i] * ln_2 + logf(sum);
  }
}

template <int W, int Rows>
void run(const Call& c) {
  using X = Tiles<W, Rows>;
  launch({"dense_fwd_04", size_t(tiles_of(c.q.T, Rows)) * size_t(c.q.B * c.q.H), X::threads,
          X::shared_bytes},
         c.stream, dense_fwd_04<W, Rows>, c.q, c.k, c.v, c.o, c.lse, c.keep, c.causal, c.scale());
}

}  // namespace

const Rung dense_04_forward{
    4,
    "dense: online softmax, register tiles",
    Pass::forward,
    is_dense,
    true,
    [](const Call& c) {
      return or_too_little_shared_memory(unsupported_width(c), c, [](auto w) {
        return Tiles<decltype(w)::value, 128>::shared_bytes;
      });
    },
    no_workspace,
    [](Pattern, const Call& c) {
      for_width_and_rows(
          c, [&](auto width, auto rows) { run<decltype(width)::value, decltype(rows)::value>(c); });
    },
    {.dropout = true, .causal = true}};

}  // namespace focus::gpu
