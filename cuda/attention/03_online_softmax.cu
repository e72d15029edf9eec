// Rung 03, dense forward: one kernel and no scores in memory. A thread owns a query: its row of Q,
// its running output, and the softmax's running maximum m and sum l. When a larger score comes,
// the sums so far shrink by exp(old m − new m): the "online" softmax (Milakov and
// Gimelshein 2018; FlashAttention, Dao et al. 2022). Keys and values pass through shared memory, 32
// at a time, where all threads of a block read the same one.
//
// D a multiple of 4 from 16 to 128. Predicted at (16,16,2048,64): a shared load of 16 bytes for 4
// multiply-adds, and 128 registers of q and o: some 8 TFLOP/s, 35 ms. (At D = 128 the 256 numbers
// of a thread do not fit its registers.)
// Measured: 13 ms: all threads of a warp read the same 16 bytes, which is one access, not 32.
#include <cmath>

#include "cuda/attention/rungs.h"
#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"

namespace focus::gpu {

namespace {

constexpr int rows = 64, keys = 32;  // queries and keys that a block holds at a time

template <int W>
__global__ void __launch_bounds__(rows)
    dense_fwd_03(Heads q, Heads k, Heads v, Heads o, float* lse, float scale) {
  SharedMemory shared;
  float* k_tile = shared.array<float>(keys * W);
  float* v_tile = shared.array<float>(keys * W);
  const int T = q.T, D = q.D, tiles = (T + rows - 1) / rows;
  const int batch_head = int(blockIdx.x) / tiles;
  const int i = int(blockIdx.x) % tiles * rows + int(threadIdx.x);
  const float* q_i = q.of(batch_head) + min(i, T - 1) * q.row_stride;
  float qi[W], oi[W], m = -INFINITY, l = 0;
#pragma unroll
  for (int d = 0; d < W; d += 4) {
    load_vector<4>(qi + d, d < D ? q_i + d : q_i);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      qi[d + e] = d < D ? qi[d + e] * scale : 0.f;
      oi[d + e] = 0;
    }
  }
  for (int j0 = 0; j0 < T; j0 += keys) {
    __syncthreads();  // nobody reads the last tile any more
    copy_rows<W, keys, rows>(k_tile, W, k, k.of(batch_head), j0);
    copy_rows<W, keys, rows>(v_tile, W, v, v.of(batch_head), j0);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();  // the tile is complete
    for (int j = 0; j < min(keys, T - j0); ++j) {
      float s = 0;
#pragma unroll
      for (int d = 0; d < W; d += 4) {
        const float4 x = load4(k_tile + j * W + d);
        s += qi[d] * x.x + qi[d + 1] * x.y + qi[d + 2] * x.z + qi[d + 3] * x.w;
      }
      //@ gap 09 online-step
      if (s > m) {
        const float shrink = expf(m - s);
        m = s, l *= shrink;
#pragma unroll
        for (int d = 0; d < W; ++d) oi[d] *= shrink;
      }
      // A score of minus infinity weighs nothing, also before any other has come.
      const float p = s == -INFINITY ? 0.f : expf(s - m);
      l += p;
#pragma unroll
      for (int d = 0; d < W; d += 4) {
        const float4 x = load4(v_tile + j * W + d);
        oi[d] += p * x.x, oi[d + 1] += p * x.y, oi[d + 2] += p * x.z, oi[d + 3] += p * x.w;
      }
      //@ end
    }
  }
  if (i >= T) return;
#pragma unroll
  for (int d = 0; d < W; d += 4)
    if (d < D)
      store4(o.of(batch_head) + i * o.row_stride + d,
             make_float4(oi[d] / l, oi[d + 1] / l, oi[d + 2] / l, oi[d + 3] / l));
  lse[ptrdiff_t{batch_head} * T + i] = m + logf(l);
}

}  // namespace

const Rung dense_03_forward{
    3,
    "dense: online softmax, a thread a row",
    Pass::forward,
    is_dense,
    true,
    unsupported_width,
    no_workspace,
    [](Pattern, const Call& c) {
      for_width(c.q.D, [&](auto width) {
        constexpr int W = decltype(width)::value;
        launch({"dense_fwd_03", size_t(tiles_of(c.q.T, rows)) * size_t(c.q.B * c.q.H), rows,
                shared_bytes_for(keys * W, keys * W)},
               c.stream, dense_fwd_03<W>, c.q, c.k, c.v, c.o, c.lse, c.scale());
      });
    }};

}  // namespace focus::gpu
