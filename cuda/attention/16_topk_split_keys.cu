// Rung 16, top-k forward for few or short heads: rung 09's gated lists and blocks of 128 queries,
// but two groups of 128 threads share a block's keys between them, the first half to one and the
// second to the other, each with lists of its own. So a multiprocessor has the 8 warps of two
// blocks where there is only one block for it, each thread has 8 × 8 scores and each lane a list.
// At the end the second group's lists are offered to the first's: its keys are all higher, so
// "strictly larger goes in front" stays the tie rule. The values are gathered by all warps.
//
// D a multiple of 4 from 16 to 64, k ≤ 16. Predicted at (25,1,600,64), k = 5: rung 09's 52 % of the
// multiply-adds' rate with many heads: 45 µs instead of 64.
// Measured on an H100 in a training step: 64 µs, rung 09 there 73: 35 % of the rate.
#include <cmath>

#include "cuda/attention/best_keys.cuh"
#include "cuda/attention/row_lanes.cuh"
#include "cuda/attention/rungs.h"
#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"

namespace focus::gpu {

namespace {

template <int W>
struct Tiles {
  static constexpr int TX = 8, TY = 16, groups = 2, threads = groups * TX * TY;
  static constexpr int rows = 128, keys = 64;  // of a block, of a group's step
  static constexpr int slots = rows / 4;       // queries of a warp
  static constexpr int R = rows / TY, N = keys / TX;
  static constexpr int stride = W + 4, stages = 2, k_floats = keys * stride;
  static constexpr int part = 32;  // keys whose candidates are collected before a merge
  static constexpr int table_stride = part + 1;
  static constexpr size_t shared_bytes = shared_bytes_for(rows * stride, groups* stages* k_floats,
                                                          groups* rows* table_stride, groups* rows);
};

template <int W, int K>
__global__ void __launch_bounds__(Tiles<W>::threads, 1)
    topk_fwd_16(Heads q, Heads k, Heads v, Heads o, int* keys, float* p, KeepBits keep, int kept,
                float scale) {
  using X = Tiles<W>;
  constexpr int R = X::R, N = X::N, TX = X::TX, TY = X::TY;
  SharedMemory shared;
  float* q_tile = shared.array<float>(X::rows * X::stride);
  float* k_tiles = shared.array<float>(X::groups * X::stages * X::k_floats);
  float* all_tables = shared.array<float>(X::groups * X::rows * X::table_stride);
  unsigned* passed = shared.array<unsigned>(X::groups * X::rows);
  const Place<TX> at;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int group = int(threadIdx.x) / (TX * TY), y0 = at.y % TY, own_warp = warp % 4;
  const int T = q.T, tiles = (T + X::rows - 1) / X::rows;
  const int unit = int(blockIdx.x) / tiles, i0 = int(blockIdx.x) % tiles * X::rows;
  const int steps = ((T + X::keys - 1) / X::keys + 1) / 2, half = steps * X::keys;
  const float* k_head = k.of(unit);
  // As in rung 09: the scores that passed for each of the warp's queries, and a bit for each.
  float* tables = all_tables + warp * X::slots * X::table_stride;
  passed += warp * X::slots;

  const auto copy_keys = [&](int step) {
    float* to = k_tiles + step % X::stages * X::groups * X::k_floats;
    for (int g = 0; g < X::groups; ++g)
      copy_rows<W, X::keys, X::threads>(to + g * X::k_floats, X::stride, k, k_head,
                                        g * half + step * X::keys);
    __pipeline_commit();
  };
  copy_rows<W, X::rows, X::threads>(q_tile, X::stride, q, q.of(unit), i0);
  copy_keys(0);
  if (lane < X::slots) passed[lane] = 0;
  __syncwarp();  // before other lanes set bits

  BestKeys<K> best;  // of the lane's slot
  float gate[R];     // of the thread's rows: row i is slot i·4 + row_in_warp
#pragma unroll
  for (int i = 0; i < R; ++i) gate[i] = best.gate();

  for (int step = 0; step < steps; ++step) {
    __pipeline_wait_prior(0);
    __syncthreads();  // this step's keys are there for all, and nobody reads the ones before
    if (step + 1 < steps) copy_keys(step + 1);
    const int j0 = group * half + step * X::keys, left = T - j0;
    const float* q_rows = q_tile + y0 * X::stride;
    const float* k_rows =
        k_tiles + (step % X::stages * X::groups + group) * X::k_floats + at.x * X::stride;
    float s[R][N] = {};
    if (left > X::part) {
      add_abt<W>(s, q_rows, TY * X::stride, k_rows, TX * X::stride);
    } else if (left > 0) {
      float first[R][N / 2] = {};
      add_abt<W>(first, q_rows, TY * X::stride, k_rows, TX * X::stride);
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int j = 0; j < N / 2; ++j) s[i][j] = first[i][j];
    }
#pragma unroll
    for (int part = 0; part < X::keys / X::part; ++part) {
      constexpr int columns = X::part / TX;
      const int base = j0 + part * X::part, rest = T - base;
      const unsigned exist = rest >= 32 ? ~0u : rest <= 0 ? 0u : (1u << rest) - 1;
#pragma unroll
      for (int i = 0; i < R; ++i) {
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
      if (!__any_sync(all_lanes, mine != 0)) continue;
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
    }
  }

  // Group 1 hands its lists over, then group 0 the result, through the tables. (rows,K) each.
  float* list_scores = all_tables;
  int* list_keys = reinterpret_cast<int*>(all_tables + X::rows * K);
  static_assert(2 * K <= X::groups * X::table_stride);
  const int y = own_warp * 4 + lane % 4 + TY * (lane / 4);  // of the lane's slot
  __syncthreads();                                          // nobody reads the tables any more
  if (group == 1 && lane < X::slots)
#pragma unroll
    for (int e = 0; e < K; ++e) {
      list_scores[y * K + e] = best.score[e];
      list_keys[y * K + e] = best.key[e];
    }
  if (group == 1 && lane < X::slots && best.has_nan) list_keys[y * K] = -1;
  __syncthreads();  // group 1's lists are there
  if (group == 0 && lane < X::slots) {
#pragma unroll
    for (int e = 0; e < K; ++e) {
      const int key = list_keys[y * K + e];
      if (key < 0) best.has_nan = true;
      if (key != no_key && key >= 0) best.offer(list_scores[y * K + e], key);
    }
    best.finish(kept, scale * log2_e);
    const int row = i0 + y;
#pragma unroll
    for (int e = 0; e < K; ++e) {
      list_keys[y * K + e] = best.key[e];
      float w = best.score[e];
      if (e < kept && row < T) {
        const ptrdiff_t to = (ptrdiff_t{unit} * T + row) * kept + e;
        keys[to] = best.key[e], p[to] = w;
        if (keep.words) w *= keep.factor(size_t(unit) * size_t(T) + size_t(row), e);
      }
      list_scores[y * K + e] = w;
    }
  }
  __syncthreads();  // the result is there
  // W/4 lanes a row read the kept rows of V.
  constexpr int row_lanes = W / 4, rows_at_once = X::threads / row_lanes;
  const float* v_head = v.of(unit);
  const int d = int(threadIdx.x) % row_lanes * 4;
  for (int r = int(threadIdx.x) / row_lanes; r < X::rows && i0 + r < T; r += rows_at_once) {
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int e = 0; e < K; ++e)
      if (e < kept)
        add_scaled(sum, list_scores[r * K + e], channels(v, v_head, list_keys[r * K + e], d));
    set_channels(o, unit, i0 + r, d, sum);
  }
}

}  // namespace

const Rung topk_16_forward{
    16,
    "top-k: keys split between warps",
    Pass::forward,
    is_topk,
    true,
    [](const Call& c) -> std::string {
      if (c.q.D > 64) return str("width ", c.q.D, ", more than 64");
      if (c.rung == 0 && !few_tiles(c, 128)) return "rung 09 has enough tiles";
      const std::string why = unsupported_list(c);
      return why.empty() ? too_little_shared_memory(Tiles<64>::shared_bytes) : why;
    },
    no_workspace,
    [](Pattern, const Call& c) {
      for_width_up_to_64(c.q.D, [&](auto width) {
        for_list(c.kept, [&](auto list) {
          using X = Tiles<decltype(width)::value>;
          launch({"topk_fwd_16", size_t(tiles_of(c.q.T, X::rows)) * size_t(c.q.B * c.q.H),
                  X::threads, X::shared_bytes},
                 c.stream, topk_fwd_16<decltype(width)::value, decltype(list)::value>, c.q, c.k,
                 c.v, c.o, c.keys, c.p, c.keep, c.kept, 1 / std::sqrt(float(c.q.D)));
        });
      });
    }};

}  // namespace focus::gpu
