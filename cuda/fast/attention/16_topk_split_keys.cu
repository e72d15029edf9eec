// Rung 16, top-k forward for few or short heads: rung 09's register tiles and blocks of 128
// queries, but two groups of 128 threads share a block's keys between them, the first half to one
// and the second to the other, each with lists of its own. So a multiprocessor has the 8 warps of
// two blocks where there is only one block for it, and each thread has 8 × 8 scores.
//
// A warp's 32 × 32 scores then pass through shared memory to the lanes, one of which owns a query:
// it scans the query's row and offers what passes its gate. The first gate is not that of an empty
// list, which all pass: of the largest of each of 8 parts of the first scores k are above it.
// At the end the second group's lists are offered to the first's: its keys are all higher, so
// "strictly larger goes in front" stays the tie rule. The values are gathered by all warps.
//
// D a multiple of 4 from 16 to 64, k ≤ 16. Predicted at (25,1,600,64), k = 5: rung 09's 52 % of the
// multiply-adds' rate with many heads: 45 µs instead of 64.
// Measured on an H100 in a training step: 64 µs, rung 09 there 73: 35 % of the rate.
// Then predicted, from 38000 cycles of multiply-adds at 85 % and selection beside them: 34 µs, by
// loads ahead of the product. It came to 60: the product was not waiting for loads, see add_scores.
// With that, one lane a query, copies that need not wait for their addresses and the values of two
// queries read at once: 50 µs (bench, in turns with 64; step 2.35 to 1.97 ms with rung 11).
// Of some 90000 cycles 54000 are the product, 14000 selection, 7000 the gathering of 20 MB from the
// second-level cache, all blocks at the same time, and 5000 pass before the first scores.
// What did not help: a group selecting while the other multiplies (the same time), three groups
// (50.5), 8 × 16 scores a thread (1 µs more): neither latency nor shared memory is the limit.
#include <cmath>

#include "cuda/attention/best_keys.cuh"
#include "cuda/attention/row_lanes.cuh"
#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"
#include "cuda/fast/attention/rungs.h"

namespace focus::gpu {

namespace {

template <int W>
struct Tiles {
  static constexpr int TX = 8, TY = 16, groups = 2, threads = groups * TX * TY;
  static constexpr int rows = 128, keys = 64;  // of a block, of a group's step
  static constexpr int slots = rows / 4;       // queries of a warp: one for each lane
  static constexpr int R = rows / TY, N = keys / TX;
  static constexpr int q_stride = rows + 4, stride = W + 4, stages = 2, k_floats = keys * stride;
  static constexpr int part = 32;  // keys that are selected from at once
  static constexpr int table_stride = slots + 8, table_floats = part * table_stride;
  static constexpr size_t shared_bytes =
      shared_bytes_for(W * q_stride, groups* stages* k_floats, groups * 4 * table_floats);
  static_assert(slots == 32 && R == 8 && N == 8);
};

// A thread's part of the queries on their way to shared memory, where they lie channel by channel,
// (W,rows). Neighbouring lanes read 32 bytes of a row; 16 rows are written to different banks.
template <int W>
struct QueryTile {
  using X = Tiles<W>;
  static constexpr int n = X::rows * (W / 4) / X::threads;
  float4 x[n];

  __device__ static int row(int part) {
    return (part * X::threads + int(threadIdx.x)) / 2 % X::rows;
  }
  __device__ static int channel(int part) {
    const int e = part * X::threads + int(threadIdx.x);
    return (e / (2 * X::rows) * 2 + e % 2) * 4;
  }
  __device__ void load(const Heads& q, const float* head, int first) {
#pragma unroll
    for (int part = 0; part < n; ++part)
      x[part] = first + row(part) < q.T ? channels(q, head, first + row(part), channel(part))
                                        : make_float4(0, 0, 0, 0);
  }
  __device__ void store(float* to) const {
#pragma unroll
    for (int part = 0; part < n; ++part) {
      float* at = to + channel(part) * X::q_stride + (row(part) ^ 1);
      at[0] = x[part].x, at[X::q_stride] = x[part].y;
      at[2 * X::q_stride] = x[part].z, at[3 * X::q_stride] = x[part].w;
    }
  }
};

// Starts copying the keys of a group's step.
template <int W>
__device__ __forceinline__ void copy_keys(float* to, const Heads& k, const float* head, int first) {
  using X = Tiles<W>;
  constexpr int vectors = W / 4, rows_at_once = X::threads / vectors;
  const int key = int(threadIdx.x) / vectors, channel = int(threadIdx.x) % vectors * 4;
  const float* from = head + (first + key) * k.row_stride + channel;
  float* at = to + key * X::stride + channel;
#pragma unroll
  for (int n = 0; n < X::keys; n += rows_at_once) {
    float* at_n = at + n * X::stride;
    if (first + key + n < k.T && channel < k.D)
      __pipeline_memcpy_async(at_n, from + n * k.row_stride, 16);
    else
      store4(at_n, make_float4(0, 0, 0, 0));
  }
}

// s += Q Kᵀ for the first C columns; q: (W,…) at the thread's first query, k at its first key.
//
// The measured times fit two banks of registers, odd and even, that give one number a cycle each. A
// multiply-add that takes a factor over from the one before needs two more, in one cycle if they
// are in different banks. So the queries of a channel lie side by side, neighbours exchanged: a
// query is in the other bank than its scores. In this order nvcc 13.0 makes of it 1.2 cycles a
// multiply-add by that rule, of add_abt 1.35 (12100 cycles a step were measured, and 11500
// at 1.26).
template <int W, int C, int N, int R>
__device__ __forceinline__ void add_scores(float (&s)[N][R], const float* q, const float* k) {
  using X = Tiles<W>;
#pragma unroll 1
  for (int x = 0; x < W; x += 4) {
    float u[4][R], v[C][4];
#pragma unroll
    for (int e = 0; e < 4; ++e)
#pragma unroll
      for (int i = 0; i < R; i += 4)
        load_vector<4>(u[e] + i, q + (x + e) * X::q_stride + i / 4 * (X::rows / 2));
#pragma unroll
    for (int j = 0; j < C; ++j) load_vector<4>(v[j], k + j * X::TX * X::stride + x);
#pragma unroll
    for (int pair = 0; pair < C; pair += 2)
#pragma unroll
      for (int e = 0; e < 4; ++e)
#pragma unroll
        for (int j = pair; j < pair + 2; ++j)
#pragma unroll
          for (int i = 0; i < R; ++i) s[j][i] += u[e][i ^ 1] * v[j][e];
  }
}

// A gate that scores of x and above pass, whichever keys they belong to.
__device__ __forceinline__ float gate_below(float x) {
  const int bits = int(__float_as_uint(x));
  const float below = __uint_as_float(bits > 0    ? unsigned(bits - 1)
                                      : bits == 0 ? 0x80000001u
                                                  : unsigned(bits + 1));
  return x == -INFINITY ? NAN : below;  // all pass
}

// A gate that the K best of the first scores pass: of the largest of each of `parts` parts K are
// at or above it.
template <int K, int N>
__device__ __forceinline__ float first_gate(const float* scores, int stride, int exist) {
  constexpr int parts = K <= 8 ? 8 : 16;
  float best[K];
#pragma unroll
  for (int e = 0; e < K; ++e) best[e] = -INFINITY;
#pragma unroll
  for (int part = 0; part < parts; ++part) {
    float top = -INFINITY;
#pragma unroll
    for (int j = part * (N / parts); j < (part + 1) * (N / parts); ++j)
      top = fmaxf(top, j < exist ? scores[j * stride] : -INFINITY);
#pragma unroll
    for (int e = K - 1; e > 0; --e) best[e] = fmaxf(fminf(top, best[e - 1]), best[e]);
    best[0] = fmaxf(top, best[0]);
  }
  return gate_below(best[K - 1]);
}

template <int W, int K>
__global__ void __launch_bounds__(Tiles<W>::threads, 1)
    topk_fwd_16(Heads q, Heads k, Heads v, Heads o, int* keys, float* p, KeepBits keep, int kept,
                float scale) {
  using X = Tiles<W>;
  constexpr int R = X::R, N = X::N, TX = X::TX, TY = X::TY;
  SharedMemory shared;
  float* q_tile = shared.array<float>(W * X::q_stride);
  float* k_tiles = shared.array<float>(X::groups * X::stages * X::k_floats);
  float* tables = shared.array<float>(X::groups * 4 * X::table_floats);
  const ThreadPosition<TX> at;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int group = int(threadIdx.x) / (TX * TY), y0 = at.y % TY;
  const int T = q.T, tiles = (T + X::rows - 1) / X::rows;
  const int batch_head = int(blockIdx.x) / tiles, i0 = int(blockIdx.x) % tiles * X::rows;
  const int steps = ((T + X::keys - 1) / X::keys + 1) / 2, half = steps * X::keys;
  float* table = tables + warp * X::table_floats;  // the warp's scores of one part, (part,slots)
  const float* scores = table + lane;              // those of the lane's query
  const int y = lane / 16 * (X::rows / 2) + warp % 4 * 16 + lane % 16;  // which is this of the tile

  const float* k_head = k.of(batch_head);
  const auto copy_step = [&](int step) {
#pragma unroll
    for (int g = 0; g < X::groups; ++g)
      copy_keys<W>(k_tiles + (step % X::stages * X::groups + g) * X::k_floats, k, k_head,
                   g * half + step * X::keys);
    __pipeline_commit();
  };
  QueryTile<W> queries;
  queries.load(q, q.of(batch_head), i0);
  copy_step(0);
  unsigned kept_bits = 0;
  if (keep.words && group == 0 && i0 + y < T)
    kept_bits =
        keep.words[(size_t(batch_head) * size_t(T) + size_t(i0 + y)) * size_t(keep.per_row)];

  queries.store(q_tile);

  BestKeys<K> best;  // of the lane's query
  for (int step = 0; step < steps; ++step) {
    __pipeline_wait_prior(0);
    __syncthreads();  // the step's keys are there for all, and nobody reads the ones before
    if (step + 1 < steps) copy_step(step + 1);
    const int j0 = group * half + step * X::keys, left = T - j0;
    if (left <= 0) continue;
    const float* q_columns = q_tile + y0 * 4;
    const float* k_rows =
        k_tiles + (step % X::stages * X::groups + group) * X::k_floats + at.x * X::stride;
    float s[N][R] = {};
    if (left > X::part)
      add_scores<W, N>(s, q_columns, k_rows);
    else
      add_scores<W, N / 2>(s, q_columns, k_rows);
#pragma unroll
    for (int first = 0; first < X::keys; first += X::part) {
#pragma unroll
      for (int j = 0; j < X::part / TX; ++j)
#pragma unroll
        for (int i = 0; i < R; i += 4) {
          const float* x = s[first / TX + j] + i;
          store4(table + (j * TX + at.x) * X::table_stride + i / 4 * 16 + at.row_in_warp * 4,
                 make_float4(x[0], x[1], x[2], x[3]));
        }
      __syncwarp();  // the table is complete
      const int rest = left - first;
      const float gate = step == 0 && first == 0
                             ? first_gate<K, X::part>(scores, X::table_stride, left)
                             : best.gate();
      unsigned passed = 0;  // a bit for each key
#pragma unroll
      for (int n = 0; n < X::part; ++n)
        if (BestKeys<K>::passes(scores[n * X::table_stride], gate)) passed |= 1u << n;
      passed &= rest >= 32 ? ~0u : rest <= 0 ? 0u : (1u << rest) - 1;
      // The next score is on its way while one is offered.
      int key = __ffs(int(passed)) - 1;
      float score = scores[max(key, 0) * X::table_stride];
      while (passed != 0) {
        passed &= passed - 1;
        const int next = __ffs(int(passed)) - 1;
        const float next_score = scores[max(next, 0) * X::table_stride];
        best.offer(score, j0 + first + key);
        key = next, score = next_score;
      }
      __syncwarp();  // before the table is written again
    }
  }

  // Group 1 hands its lists over, then group 0 the result, through the tables. (rows,K) each.
  float* list_scores = tables;
  int* list_keys = reinterpret_cast<int*>(tables + X::rows * K);
  static_assert(2 * X::rows * K <= X::groups * 4 * X::table_floats);
  __syncthreads();  // nobody reads the tables any more
  if (group == 1) {
#pragma unroll
    for (int e = 0; e < K; ++e) {
      list_scores[y * K + e] = best.score[e];
      list_keys[y * K + e] = best.key[e];
    }
    if (best.has_nan) list_keys[y * K] = -1;
  }
  __syncthreads();  // group 1's lists are there
  if (group == 0) {
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
        const ptrdiff_t to = (ptrdiff_t{batch_head} * T + row) * kept + e;
        keys[to] = best.key[e], p[to] = w;
        if (keep.words) w *= (kept_bits >> e & 1) ? keep.scale : 0.f;
      }
      list_scores[y * K + e] = w;
    }
  }
  __syncthreads();  // the result is there
  // W/4 lanes a row read the kept rows of V, those of two queries before the first is needed.
  constexpr int row_lanes = W / 4, rows_at_once = X::threads / row_lanes;
  const float* v_head = v.of(batch_head);
  float* o_head = o.of(batch_head);
  const int d = int(threadIdx.x) % row_lanes * 4;
#pragma unroll 1
  for (int r0 = int(threadIdx.x) / row_lanes; r0 < X::rows; r0 += 2 * rows_at_once) {
    float4 rows[2][K];
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int e = 0; e < K; ++e)
        rows[n][e] = e < kept ? channels(v, v_head, list_keys[(r0 + n * rows_at_once) * K + e], d)
                              : make_float4(0, 0, 0, 0);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int r = r0 + n * rows_at_once;
      float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
      for (int e = 0; e < K; ++e) add_scaled(sum, list_scores[r * K + e], rows[n][e]);
      if (i0 + r < T && d < o.D) store4(o_head + (i0 + r) * o.row_stride + d, sum);
    }
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
      if (std::string why = wider_than_64(c); !why.empty()) return why;
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
                 c.v, c.o, c.keys, c.p, c.keep, c.kept, c.scale());
        });
      });
    },
    {.dropout = true}};

}  // namespace focus::gpu
