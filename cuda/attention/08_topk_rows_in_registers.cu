// Rung 08, top-k forward: one kernel, no scores in memory. A thread owns a query, as in rung 03:
// its row of Q and its list of the best keys so far stay in registers. Most keys fail against the
// last entry of the list, one comparison; in random order only k(1 + ln(T/k)) of a row's keys enter
// it.
//
// D a multiple of 4 from 16 to 128, k ≤ 16. Predicted at (16,16,2048,64), k = 5: a shared load of
// 16 bytes for 4 multiply-adds, as in rung 03 but half the products: 17 ms; the threads of a warp
// insert at different keys, each insertion holding up all 32: 35 of them, 1100 a warp, 30
// instructions each: 6 ms.
// Measured: 5.9 ms: as in rung 03, and the threads of a warp often insert at the same keys.
#include <cmath>

#include "cuda/attention/best_keys.cuh"
#include "cuda/attention/rungs.h"
#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"

namespace focus::gpu {

namespace {

constexpr int rows = 64, tile_keys = 32;

template <int W, int K>
__global__ void __launch_bounds__(rows)
    topk_fwd_08(Heads q, Heads k, Heads v, Heads o, int* keys, float* p, int kept, float scale) {
  SharedMemory shared;
  float* k_tile = shared.array<float>(tile_keys * W);
  const int T = q.T, D = q.D, tiles = (T + rows - 1) / rows;
  const int batch_head = int(blockIdx.x) / tiles;
  const int i = int(blockIdx.x) % tiles * rows + int(threadIdx.x);
  const float* q_i = q.of(batch_head) + min(i, T - 1) * q.row_stride;
  float qi[W];
#pragma unroll
  for (int d = 0; d < W; d += 4) {
    load_vector<4>(qi + d, d < D ? q_i + d : q_i);
#pragma unroll
    for (int e = 0; e < 4; ++e) qi[d + e] = d < D ? qi[d + e] : 0.f;
  }
  BestKeys<K> best;
  for (int j0 = 0; j0 < T; j0 += tile_keys) {
    __syncthreads();  // nobody reads the last tile any more
    copy_rows<W, tile_keys, rows>(k_tile, W, k, k.of(batch_head), j0);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();  // the tile is complete
    for (int j = 0; j < min(tile_keys, T - j0); ++j) {
      float s = 0;
#pragma unroll
      for (int d = 0; d < W; d += 4) {
        const float4 x = load4(k_tile + j * W + d);
        s += qi[d] * x.x + qi[d + 1] * x.y + qi[d + 2] * x.z + qi[d + 3] * x.w;
      }
      if (best.passes(s, best.gate())) best.offer(s, j0 + j);
    }
  }
  if (i >= T) return;
  best.finish(kept, scale * log2_e);
#pragma unroll
  for (int e = 0; e < K; ++e)
    if (e < kept) {
      const ptrdiff_t at = (ptrdiff_t{batch_head} * T + i) * kept + e;
      keys[at] = best.key[e], p[at] = best.score[e];
    }
  for (int d = 0; d < D; d += 4) {
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int e = 0; e < K; ++e)
      if (e < kept) {
        const float4 x = load4(v.of(batch_head) + best.key[e] * v.row_stride + d);
        const float w = best.score[e];
        sum.x += w * x.x, sum.y += w * x.y, sum.z += w * x.z, sum.w += w * x.w;
      }
    store4(o.of(batch_head) + i * o.row_stride + d, sum);
  }
}

}  // namespace

const Rung topk_08_forward{
    8,
    "top-k: list in registers, a thread a row",
    Pass::forward,
    is_topk,
    true,
    unsupported_list,
    no_workspace,
    [](Pattern, const Call& c) {
      for_width(c.q.D, [&](auto width) {
        for_list(c.kept, [&](auto list) {
          constexpr int W = decltype(width)::value, K = decltype(list)::value;
          launch({"topk_fwd_08", size_t(tiles_of(c.q.T, rows)) * size_t(c.q.B * c.q.H), rows,
                  shared_bytes_for(tile_keys * W)},
                 c.stream, topk_fwd_08<W, K>, c.q, c.k, c.v, c.o, c.keys, c.p, c.kept, c.scale());
        });
      });
    }};

}  // namespace focus::gpu
