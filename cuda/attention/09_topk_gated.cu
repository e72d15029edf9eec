// Rung 09, top-k forward: rung 04's register tiles for the scores, and a gate for each query. A
// thread holds 8 × 8 scores of 8 queries; a score is compared with its query's gate, the last entry
// of that query's list. Those that pass go to a small table in shared memory, and once for every 32
// keys each lane takes the table of one query, a warp's 32 queries at the same time, and merges it
// into the list it keeps in registers. A gate that lags behind the list lets too much pass, never
// too little, so the result is exact.
//
// D a multiple of 4 from 16 to 128, k ≤ 16. Predicted at (16,16,2048,64), k = 5: half of rung 04's
// products, 4.2 ms at 33 TFLOP/s; one comparison for 64 multiply-adds 3 %; appending and merging
// 10 %; gathering values 0.1 ms: 4.9 ms.
// Measured: 3.9 ms.
#include <cmath>

#include "cuda/attention/best_keys.cuh"
#include "cuda/attention/rungs.h"
#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"

namespace focus::gpu {

namespace {

// Rows: queries of a block; 64 instead of 128 where there are too few for two blocks on each
// multiprocessor.
template <int W, int Rows>
struct Tiles {
  static constexpr int TX = 8, TY = 16, threads = TX * TY;
  static constexpr int rows = Rows, keys = 64;  // of a block, of a step
  static constexpr int slots = rows / 4;        // queries of a warp
  static constexpr int R = rows / TY, N = keys / TX;
  static constexpr int stride = W + 4, stages = W == 128 ? 1 : 2;
  static constexpr int part = 32;  // keys whose candidates are collected before a merge
  static constexpr int table_stride = part + 1;
  static constexpr size_t shared_bytes =
      shared_bytes_for(rows * stride, stages* keys* stride, rows* table_stride, rows);
};

template <int W, int K, int Rows>
__global__ void __launch_bounds__(Tiles<W, Rows>::threads, 2)
    topk_fwd_09(Heads q, Heads k, Heads v, Heads o, int* keys, float* p, KeepBits keep, bool causal,
                int kept, float scale) {
  using X = Tiles<W, Rows>;
  constexpr int R = X::R, N = X::N, TX = X::TX, TY = X::TY;
  SharedMemory shared;
  float* q_tile = shared.array<float>(X::rows * X::stride);
  float* k_tiles = shared.array<float>(X::stages * X::keys * X::stride);
  // For each warp and each of its queries: scores that passed, in their key's place, and a bit
  // for each of them. The query that a lane keeps is called its slot.
  float* tables = shared.array<float>(X::rows * X::table_stride);
  unsigned* passed = shared.array<unsigned>(X::rows);
  const ThreadPosition<TX> at;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int T = q.T, tiles = (T + X::rows - 1) / X::rows;
  const int batch_head = int(blockIdx.x) / tiles, i0 = int(blockIdx.x) % tiles * X::rows;
  const float* k_head = k.of(batch_head);
  tables += warp * X::slots * X::table_stride, passed += warp * X::slots;

  copy_rows<W, X::rows, X::threads>(q_tile, X::stride, q, q.of(batch_head), i0);
  copy_rows<W, X::keys, X::threads>(k_tiles, X::stride, k, k_head, 0);
  __pipeline_commit();
  if (lane < X::slots) passed[lane] = 0;
  __syncwarp();  // before other lanes set bits

  BestKeys<K> best;  // of the lane's slot
  float gate[R];     // of the thread's 8 rows: row i is slot i·4 + row_in_warp
#pragma unroll
  for (int i = 0; i < R; ++i) gate[i] = best.gate();

  const int seen = causal ? min(T, i0 + X::rows) : T;  // by one of the block's queries
  for (int j0 = 0; j0 < seen; j0 += X::keys) {
    const float* k_tile = k_tiles + j0 / X::keys % X::stages * X::keys * X::stride;
    __pipeline_wait_prior(0);
    __syncthreads();  // this tile is there for all, and nobody reads the one before
    if (X::stages == 2) {
      copy_rows<W, X::keys, X::threads>(
          k_tiles + (j0 / X::keys + 1) % X::stages * X::keys * X::stride, X::stride, k, k_head,
          j0 + X::keys);
      __pipeline_commit();
    }
    float s[R][N] = {};
    add_abt<W>(s, q_tile + at.y * X::stride, TY * X::stride, k_tile + at.x * X::stride,
               TX * X::stride);
    if (X::stages == 1) {
      __syncthreads();  // nobody reads the tile any more
      copy_rows<W, X::keys, X::threads>(k_tiles, X::stride, k, k_head, j0 + X::keys);
      __pipeline_commit();
    }
#pragma unroll
    for (int part = 0; part < X::keys / X::part; ++part) {
      constexpr int columns = X::part / TX;
      const int base = j0 + part * X::part;
      const auto first_bits = [](int n) { return n >= 32 ? ~0u : n <= 0 ? 0u : (1u << n) - 1; };
      const unsigned all = first_bits(T - base);
#pragma unroll
      for (int i = 0; i < R; ++i) {
        const unsigned exist = causal ? all & first_bits(i0 + at.y + TY * i + 1 - base) : all;
        unsigned bits = 0;
#pragma unroll
        for (int j = 0; j < columns; ++j)
          if (BestKeys<K>::passes(s[i][part * columns + j], gate[i])) bits |= 1u << (TX * j);
        bits = bits << at.x & exist;
        if (bits == 0) continue;
        const int slot = i * 4 + at.row_in_warp;
        float* table = tables + slot * X::table_stride + at.x;
#pragma unroll
        for (int j = 0; j < columns; ++j) table[TX * j] = s[i][part * columns + j];
        atomicOr(passed + slot, bits);
      }
      __syncwarp();  // the tables are complete
      unsigned mine = lane < X::slots ? passed[lane] : 0;
      if (__any_sync(all_lanes, mine != 0)) {
        //@ gap 10 merge
        if (mine != 0) passed[lane] = 0;
        while (mine != 0) {
          const int bit = __ffs(int(mine)) - 1;
          mine &= mine - 1;
          best.offer(tables[lane * X::table_stride + bit], base + bit);
        }
        __syncwarp();  // before the tables are written again
#pragma unroll
        for (int i = 0; i < R; ++i)
          gate[i] = __shfl_sync(all_lanes, best.gate(), i * 4 + at.row_in_warp);
        //@ end
      }
    }
  }
  __pipeline_wait_prior(0);

  const auto row_of = [&](int slot) { return i0 + warp * 4 + slot % 4 + TY * (slot / 4); };
  const int own = causal ? min(kept, row_of(lane) + 1) : kept;
  best.finish(own, scale * log2_e);
#pragma unroll
  for (int e = 0; e < K; ++e)
    if (e >= own && e < kept) best.key[e] = e;  // not seen: the list has all others
  if (const int row = row_of(lane); lane < X::slots && row < T)
#pragma unroll
    for (int e = 0; e < K; ++e)
      if (e < kept) {
        const ptrdiff_t to = (ptrdiff_t{batch_head} * T + row) * kept + e;
        keys[to] = best.key[e], p[to] = best.score[e];
      }
  // W/4 lanes a row read the kept rows of V.
  constexpr int row_lanes = W / 4, rows_at_once = 32 / row_lanes;
  const float* v_head = v.of(batch_head);
  const int d = lane % row_lanes * 4;
  for (int first = 0; first < X::slots; first += rows_at_once) {
    const int slot = first + lane / row_lanes, row = row_of(slot);
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int e = 0; e < K; ++e) {
      const int key = __shfl_sync(all_lanes, best.key[e], slot);
      float w = __shfl_sync(all_lanes, best.score[e], slot);
      if (e >= kept || d >= q.D) continue;
      if (keep.words && row < T) w *= keep.factor(size_t(batch_head) * size_t(T) + size_t(row), e);
      const float4 x = load4(v_head + key * v.row_stride + d);
      sum.x += w * x.x, sum.y += w * x.y, sum.z += w * x.z, sum.w += w * x.w;
    }
    if (row < T && d < q.D) store4(o.of(batch_head) + row * o.row_stride + d, sum);
  }
}

template <int W, int Rows>
void run(const Call& c) {
  for_list(c.kept, [&](auto list) {
    using X = Tiles<W, Rows>;
    launch({"topk_fwd_09", size_t(tiles_of(c.q.T, Rows)) * size_t(c.q.B * c.q.H), X::threads,
            X::shared_bytes},
           c.stream, topk_fwd_09<W, decltype(list)::value, Rows>, c.q, c.k, c.v, c.o, c.keys, c.p,
           c.keep, c.causal, c.kept, c.scale());
  });
}

}  // namespace

const Rung topk_09_forward{9,
                           "top-k: register tiles, gated lists",
                           Pass::forward,
                           is_topk,
                           true,
                           [](const Call& c) {
                             return or_too_little_shared_memory(unsupported_list(c), c, [](auto w) {
                               return Tiles<decltype(w)::value, 128>::shared_bytes;
                             });
                           },
                           no_workspace,
                           [](Pattern, const Call& c) {
                             for_width_and_rows(c, [&](auto width, auto rows) {
                               run<decltype(width)::value, decltype(rows)::value>(c);
                             });
                           },
                           {.dropout = true, .causal = true}};

}  // namespace focus::gpu
