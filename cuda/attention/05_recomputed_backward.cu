// Rung 05, dense backward: fused, scores recomputed. A block owns keys: for each tile of 64 keys it
// passes over all queries, 64 at a time, recomputes P = exp(S − lse) and dS, and sums dK and dV in
// registers; dQ grows tile by tile in memory. Five products a step instead of stored scores
// (FlashAttention-2, Dao 2023, algorithm 2; delta = rowsum(dO ∘ O) = rowsum(P ∘ dP)).
//
// No atomics, so the same bits every time: a head's key tiles are dealt to a few blocks, one block
// adds its tiles to its own copy of dQ in order, and the copies are added in order at the end. With
// many heads one block a head is enough, and its copy is dQ itself.
//
// Causal: a key tile's queries begin with its own tile.
// D a multiple of 4 from 16 to 128. Predicted at (16,16,2048,64): 690 GFLOP with 12 shared loads
// for 128 multiply-adds, 50 % of 51 TFLOP/s: 27 ms.
// Measured: 21.6 ms.
#include <algorithm>
#include <cmath>

#include "cuda/attention/rungs.h"
#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"

namespace focus::gpu {

namespace {

template <int W>
struct Tiles {
  static constexpr int TX = 16, TY = W == 128 ? 16 : 8, threads = TX * TY;
  static constexpr int side = 64;  // queries and keys of a tile
  static constexpr int R = side / TY, N = side / TX, C = W / TX;
  static constexpr int stride = W + 4, p_stride = side + 4;
  static constexpr size_t shared_bytes =
      shared_bytes_for(side * stride, side* stride, side* stride, side* stride, side* p_stride,
                       side* p_stride, 2 * side);
};

// delta: (B,H,T) = rowsum(dO ∘ O). A warp a row.
__global__ void dense_delta_05(Heads o, Heads d_o, float* delta) {
  const int row = int(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), lane = threadIdx.x % 32;
  if (row >= o.B * o.H * o.T) return;
  const int batch_head = row / o.T, i = row % o.T;
  const float *o_i = o.of(batch_head) + i * o.row_stride,
              *d_o_i = d_o.of(batch_head) + i * d_o.row_stride;
  float sum = 0;
  for (int d = lane; d < o.D; d += 32) sum += o_i[d] * d_o_i[d];
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(all_lanes, sum, lanes);
  if (lane == 0) delta[row] = sum;
}

// dq: (splits,B,H,T,D) if there are several, else the result itself.
template <int W>
__global__ void __launch_bounds__(Tiles<W>::threads, W == 128 ? 1 : 2)
    dense_bwd_05(Heads q, Heads k, Heads v, Heads d_o, const float* lse, const float* delta,
                 Heads dq, Heads dk, Heads dv, KeepBits keep, bool causal, int splits,
                 float scale) {
  using X = Tiles<W>;
  constexpr int R = X::R, N = X::N, C = X::C, TX = X::TX, TY = X::TY, side = X::side;
  SharedMemory shared;
  float* q_tile = shared.array<float>(side * X::stride);
  float* d_o_tile = shared.array<float>(side * X::stride);
  float* k_tile = shared.array<float>(side * X::stride);
  float* v_tile = shared.array<float>(side * X::stride);
  float* p_tile = shared.array<float>(side * X::p_stride);  // (queries, keys)
  float* ds_tile = shared.array<float>(side * X::p_stride);
  float* row_sums = shared.array<float>(2 * side);  // lse in powers of 2, delta
  const ThreadPosition<TX> at;
  const int T = q.T, D = q.D, tiles = (T + side - 1) / side, batch_heads = q.B * q.H;
  const int batch_head = int(blockIdx.x) / splits, split = int(blockIdx.x) % splits;
  const int first = tiles * split / splits, last = tiles * (split + 1) / splits;
  const float to_log2 = scale * log2_e;
  float* dq_head = dq.of(splits > 1 ? split * batch_heads + batch_head : batch_head);

  for (int j0 = first * side; j0 < last * side; j0 += side) {
    copy_rows<W, side, X::threads>(k_tile, X::stride, k, k.of(batch_head), j0);
    copy_rows<W, side, X::threads>(v_tile, X::stride, v, v.of(batch_head), j0);
    float dk_sum[R][C] = {}, dv_sum[R][C] = {};
    for (int i0 = causal ? j0 : 0; i0 < T; i0 += side) {
      copy_rows<W, side, X::threads>(q_tile, X::stride, q, q.of(batch_head), i0);
      copy_rows<W, side, X::threads>(d_o_tile, X::stride, d_o, d_o.of(batch_head), i0);
      __pipeline_commit();
      for (int e = int(threadIdx.x); e < side; e += X::threads) {
        const ptrdiff_t row = ptrdiff_t{batch_head} * T + i0 + e;
        row_sums[e] = i0 + e < T ? lse[row] * log2_e : 0.f;
        row_sums[side + e] = i0 + e < T ? delta[row] : 0.f;
      }
      __pipeline_wait_prior(0);
      __syncthreads();  // all tiles are there for all
      const auto kept = [&](int y, int x) {
        if (!keep.words || i0 + y >= T || j0 + x >= T) return 1.f;
        return keep.factor(size_t(batch_head) * size_t(T) + size_t(i0 + y), j0 + x);
      };
      {
        float s[R][N] = {};
        add_abt<W>(s, q_tile + at.y * X::stride, TY * X::stride, k_tile + at.x * X::stride,
                   TX * X::stride);
        if (causal && i0 == j0) {  // the tile on the diagonal: some keys are not seen
#pragma unroll
          for (int i = 0; i < R; ++i)
#pragma unroll
            for (int j = 0; j < N; ++j)
              if (at.x + TX * j > at.y + TY * i) s[i][j] = -INFINITY;
        }
        //@ gap 09 weights-and-gradients
#pragma unroll
        for (int i = 0; i < R; ++i)
#pragma unroll
          for (int j = 0; j < N; ++j) {
            const int y = at.y + TY * i, x = at.x + TX * j;
            const bool in = i0 + y < T && j0 + x < T;
            s[i][j] = in ? fast_exp2(fmaf(s[i][j], to_log2, -row_sums[y])) : 0.f;
            p_tile[y * X::p_stride + x] = s[i][j] * kept(y, x);
          }
        float dp[R][N] = {};
        add_abt<W>(dp, d_o_tile + at.y * X::stride, TY * X::stride, v_tile + at.x * X::stride,
                   TX * X::stride);
#pragma unroll
        for (int i = 0; i < R; ++i)
#pragma unroll
          for (int j = 0; j < N; ++j) {
            const int y = at.y + TY * i, x = at.x + TX * j;
            const float d = dp[i][j] * kept(y, x);
            ds_tile[y * X::p_stride + x] = scale * s[i][j] * (d - row_sums[side + y]);
          }
        //@ end
      }
      // What the earlier key tiles of this block have summed.
      float dq_sum[R][C] = {};
      if (j0 > first * side) {
#pragma unroll
        for (int i = 0; i < R; ++i)
#pragma unroll
          for (int c = 0; c < C; ++c) {
            const int row = i0 + at.y + TY * i, d = column<TX, C>(at.x, c);
            if (row < T && d < D) dq_sum[i][c] = dq_head[row * dq.row_stride + d];
          }
      }
      __syncthreads();  // P and dS are complete
      add_atb<TX, TY, side>(dv_sum, p_tile + at.y * 4, X::p_stride, d_o_tile + at.x * vector_of<C>,
                            X::stride);
      add_atb<TX, TY, side>(dk_sum, ds_tile + at.y * 4, X::p_stride, q_tile + at.x * vector_of<C>,
                            X::stride);
      add_ab<TX, side>(dq_sum, ds_tile + at.y * X::p_stride, TY * X::p_stride,
                       k_tile + at.x * vector_of<C>, X::stride);
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int c = 0; c < C; ++c) {
          const int row = i0 + at.y + TY * i, d = column<TX, C>(at.x, c);
          if (row < T && d < D) dq_head[row * dq.row_stride + d] = dq_sum[i][c];
        }
      __syncthreads();  // nobody reads the tiles any more
    }
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int row = j0 + i / 4 * (4 * TY) + at.y * 4 + i % 4, d = column<TX, C>(at.x, c);
        if (row >= T || d >= D) continue;
        dk.of(batch_head)[row * dk.row_stride + d] = dk_sum[i][c];
        dv.of(batch_head)[row * dv.row_stride + d] = dv_sum[i][c];
      }
  }
}

// dq = the sum of the copies, in order. A thread a number. Causal: of the blocks whose first key
// tile the query sees; the others have written none.
__global__ void dense_sum_05(const float* copies, int splits, Heads dq, int tiles, bool causal) {
  const size_t size = size_t(dq.B) * dq.H * dq.T * dq.D;
  const size_t e = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e >= size) return;
  const size_t row = e / size_t(dq.D);
  const int own_tile = int(row % size_t(dq.T)) / Tiles<64>::side;
  float sum = 0;
  for (int s = 0; s < splits; ++s)
    if (!causal || tiles * s / splits <= own_tile) sum += copies[size_t(s) * size + e];
  dq.of(int(
      row /
      size_t(dq.T)))[ptrdiff_t(row % size_t(dq.T)) * dq.row_stride + ptrdiff_t(e % size_t(dq.D))] =
      sum;
}

// Blocks a head: enough for two blocks on each multiprocessor, as long as each has a key tile.
int splits_of(const Call& c) {
  const int wanted = 2 * device().multiprocessors / std::max(1, c.q.B / c.parts * c.q.H);
  return std::clamp(wanted, 1, tiles_of(c.q.T, Tiles<64>::side));
}
size_t rows_of_call(const Call& c) {
  return size_t(c.q.B) * size_t(c.q.H) * size_t(c.q.T);
}
size_t delta_floats(const Call& c) {  // keeps what follows at multiples of 16 bytes
  return (rows_of_call(c) + 3) / 4 * 4;
}

template <int W>
void run(const Call& c) {
  using X = Tiles<W>;
  const int batch_heads = c.q.B * c.q.H, splits = splits_of(c);
  const float scale = c.scale();
  float *delta = static_cast<float*>(c.workspace), *copies = delta + delta_floats(c);
  launch({"dense_delta_05", (rows_of_call(c) + 7) / 8, 256}, c.stream, dense_delta_05, c.o, c.d_o,
         delta);
  const Heads dq = splits > 1 ? heads_bhtd(copies, splits * c.q.B, c.q.H, c.q.T, c.q.D) : c.dq;
  launch({"dense_bwd_05", size_t(batch_heads) * size_t(splits), X::threads, X::shared_bytes},
         c.stream, dense_bwd_05<W>, c.q, c.k, c.v, c.d_o, c.lse, delta, dq, c.dk, c.dv, c.keep,
         c.causal, splits, scale);
  if (splits > 1)
    launch({"dense_sum_05", (rows_of_call(c) * size_t(c.q.D) + 255) / 256, 256}, c.stream,
           dense_sum_05, copies, splits, c.dq, tiles_of(c.q.T, X::side), c.causal);
}

}  // namespace

const Rung dense_05_backward{
    5,
    "dense: scores recomputed, register tiles",
    Pass::backward,
    is_dense,
    true,
    [](const Call& c) {
      return or_too_little_shared_memory(
          unsupported_width(c), c, [](auto w) { return Tiles<decltype(w)::value>::shared_bytes; });
    },
    [](const Call& c) {
      const int splits = splits_of(c);
      return 4 * (delta_floats(c) +
                  (splits > 1 ? size_t(splits) * rows_of_call(c) * size_t(c.q.D) : 0));
    },
    [](Pattern, const Call& c) {
      for_width(c.q.D, [&](auto width) { run<decltype(width)::value>(c); });
    },
    {.dropout = true, .causal = true}};

}  // namespace focus::gpu
