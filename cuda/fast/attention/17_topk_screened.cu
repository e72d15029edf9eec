// Rung 17, top-k forward: tensor cores screen the keys, float32 decides. Which k of T scores are
// the largest is a question about the few at the top; the others need no exact score.
//
//   1. All scores of the block's queries roughly: a, from factors rounded to 8 bits (bf16). Of each
//      query the largest of every 32nd part of the keys is kept: the k-th largest of these maxima,
//      L, is at most the k-th largest of all a.
//   2. Whatever the inputs, |a − q·k| <= M = 1.0625 · 2⁻⁸ ‖q‖ max ‖k‖: rounding changes a factor by
//      2⁻⁹ of itself at most, and the sum of |q_c k_c| is at most ‖q‖‖k‖ (the 6 % are for the
//      roundings of sums, which are below 2⁻¹⁵). So k keys score at least L − M, each of the best
//      does, and its a is at least L − 2M. The rough scores are made again, which is cheaper than
//      to keep them, and the keys that reach this bound are the candidates: 7 of 600 for k = 5.
//   3. Their scores in float32, by the same sum in the same order as rungs 08, 09 and 16, decide,
//      with the same tie rule. So keys, weights and output are those of float32, to the bit.
//
// A query with too many candidates (keys that are nearly the same) or without a bound (NaN,
// infinity, norms whose squares leave float32's range) takes all keys in float32, as in rung 08, a
// thread each.
//
// D a multiple of 4 from 16 to 64, k ≤ 16, tensor cores (compute capability 8.0). Predicted at
// (25,1,600,64), k = 5: 20 to 25 µs, a third of it tensor cores.
// Measured on an H100: 37 µs, rung 16 beside it 64; at (16,16,2048,64) 2.1 ms, rung 09 beside
// it 3.9. Tensor cores are not what it waits for: the first form, in tf32, with every warp rounding
// the keys for itself, took 47. A third of the time goes to what candidates cost: 30 MB of their
// rows from the second-level cache, at once for all warps, then lists and values.
#include <cmath>

#include "cuda/attention/best_keys.cuh"
#include "cuda/attention/row_lanes.cuh"
#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"
#include "cuda/fast/attention/rungs.h"
#include "cuda/fast/tensor_cores/mma.h"

namespace focus::gpu {

namespace {

template <int W, int K>
struct Screen {
  static constexpr int rows = 128, keys = 128;  // of a block, of a step
  // A warp takes 32 queries and a quarter of the step's keys, as tiles of 16 × 8.
  static constexpr int row_groups = 4, key_groups = 4, threads = 32 * row_groups * key_groups;
  static constexpr int tiles = keys / key_groups / 8;
  static constexpr int stride = W + 4, words = W / 2 + 4;  // of a query's row, of a key's as bf16
  static constexpr int tile_words = keys * words;
  static constexpr int batch = K <= 8 ? 32 : 16;  // candidates that a warp scores at once
  static constexpr int batch_floats = batch * stride;
  // A lane keeps so many maxima for each of its queries; 4 lanes of 4 warps meet a query.
  static constexpr int lane_maxima = K <= 8 ? 2 : 4, maxima = 4 * key_groups * lane_maxima;
  static constexpr int most = maxima;  // candidates of a query
  static constexpr int table = most + 1;
  // The keys' tiles first, then the candidates' rows.
  static constexpr int rows_or_tiles = threads / 32 * batch_floats;
  static_assert(2 * tile_words <= rows_or_tiles);
  static constexpr size_t shared_bytes = shared_bytes_for(rows * stride, rows_or_tiles, rows* table,
                                                          rows* table, rows, rows, threads / 32);
};

// The K largest of numbers that come in any order, largest first.
template <int K>
__device__ __forceinline__ void insert(float (&largest)[K], float x) {
#pragma unroll
  for (int e = 0; e < K; ++e) {
    const float smaller = fminf(largest[e], x);
    largest[e] = fmaxf(largest[e], x);
    x = smaller;
  }
}

// As BestKeys::offer, for keys in any order whose scores are finite: of two equal scores the lower
// key goes in front. Places begin at minus infinity.
template <int K>
__device__ __forceinline__ void offer_unordered(BestKeys<K>& best, float s, int j) {
  bool found = false;
#pragma unroll
  for (int e = 0; e < K; ++e) {
    const float old_score = best.score[e];
    const int old_key = best.key[e];
    found = found || s > old_score || (s == old_score && j < old_key);
    best.score[e] = found ? s : old_score, best.key[e] = found ? j : old_key;
    s = found ? old_score : s, j = found ? old_key : j;
  }
}

// s += q·k in float32, channel by channel: the next four.
__device__ __forceinline__ void add_exactly(float& s, float4 q, float4 k) {
  s += q.x * k.x, s += q.y * k.y, s += q.z * k.z, s += q.w * k.w;
}

// The list of a query by all keys.
template <int W, int K>
__device__ void offer_all(BestKeys<K>& best, const float* q_row, const Heads& k,
                          const float* k_head) {
  for (int j = 0; j < k.T; j += 4) {
    float s[4] = {};
#pragma unroll
    for (int c = 0; c < W; c += 4)
#pragma unroll
      for (int n = 0; n < 4; ++n)
        add_exactly(s[n], load4(q_row + c), channels(k, k_head, min(j + n, k.T - 1), c));
#pragma unroll
    for (int n = 0; n < 4; ++n)
      if (j + n < k.T) best.offer(s[n], j + n);
  }
}

// A warp scores the candidates of its 8 queries, a batch at a time. counts, keys, scores: of the
// first of them; rows: memory for a batch of keys.
template <class X, int W>
__device__ __forceinline__ void score_candidates(const int* counts, const int* keys, float* scores,
                                                 const float* q_rows, const Heads& k,
                                                 const float* k_head, float* rows) {
  constexpr int row_lanes = W / 4;
  const int lane = int(threadIdx.x) % 32, d = lane % row_lanes * 4;
  const int own = lane < 8 ? counts[lane] : 0;
  int end = own <= X::most ? own : 0;  // of the query's candidates among the warp's
#pragma unroll
  for (int lanes = 1; lanes < 8; lanes *= 2) {
    const int before = __shfl_up_sync(all_lanes, end, lanes);
    if (lane >= lanes) end += before;
  }
  const int all = __shfl_sync(all_lanes, end, 7);
  for (int first = 0; first < all; first += X::batch) {
    const int candidate = first + lane % X::batch;
    int query = 0, begin = 0;
#pragma unroll
    for (int r = 0; r < 7; ++r) {
      const int r_end = __shfl_sync(all_lanes, end, r);
      if (candidate >= r_end) query = r + 1, begin = r_end;
    }
    const int at = query * X::table + candidate - begin;
    const int key = candidate < all ? keys[at] : 0;
#pragma unroll
    for (int n = lane / row_lanes; n < X::batch; n += 32 / row_lanes) {
      const int from = __shfl_sync(all_lanes, key, n);
      float* to = rows + n * X::stride + d;
      if (d < k.D)
        __pipeline_memcpy_async(to, k_head + from * k.row_stride + d, 16);
      else
        store4(to, make_float4(0, 0, 0, 0));
    }
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncwarp();  // the batch is there
    if (lane < X::batch && candidate < all) {
      float s = 0;
#pragma unroll
      for (int c = 0; c < W; c += 4)
        add_exactly(s, load4(q_rows + query * X::stride + c), load4(rows + lane * X::stride + c));
      scores[at] = s;
    }
    __syncwarp();  // the batch is read
  }
}

// STAY: all keys' tiles fit, so they are read and rounded once, and stay for the second time.
template <int W, int K, bool STAY>
__global__ void __launch_bounds__(Screen<W, K>::threads, 1)
    topk_fwd_17(Heads q, Heads k, Heads v, Heads o, int* keys, float* p, KeepBits keep, int kept,
                float scale) {
  using X = Screen<W, K>;
  SharedMemory shared;
  float* q_tile = shared.array<float>(X::rows * X::stride);
  float* candidate_rows = shared.array<float>(X::rows_or_tiles);
  unsigned* k_tiles = reinterpret_cast<unsigned*>(candidate_rows);
  float* all_scores = shared.array<float>(X::rows * X::table);  // of candidates; first the maxima
  int* all_keys = shared.array<int>(X::rows * X::table);
  float* thresholds = shared.array<float>(X::rows);
  int* counts = shared.array<int>(X::rows);
  float* squares = shared.array<float>(X::threads / 32);  // the largest ‖k‖² that a warp has seen
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int g = lane / 4, t = lane % 4;  // tensor_cores/mma.h: who holds what
  const int row_group = warp % X::row_groups, key_group = warp / X::row_groups;
  const int T = q.T, blocks = (T + X::rows - 1) / X::rows, steps = (T + X::keys - 1) / X::keys;
  const int batch_head = int(blockIdx.x) / blocks, i0 = int(blockIdx.x) % blocks * X::rows;
  const float *k_head = k.of(batch_head), *v_head = v.of(batch_head);
  constexpr int row_lanes = W / 4, rows_at_once = X::threads / row_lanes;
  const int own_row = int(threadIdx.x) / row_lanes, d = int(threadIdx.x) % row_lanes * 4;

  // The keys pass by twice. A thread holds its part of the next step's in registers, four channels
  // of some rows, until it writes them as bf16.
  constexpr int parts = (X::keys + rows_at_once - 1) / rows_at_once;
  float4 coming[parts];
  const auto fetch_keys = [&](int step) {
#pragma unroll
    for (int n = 0; n < parts; ++n) {
      const int row = n * rows_at_once + own_row, key = step * X::keys + row;
      coming[n] = row < X::keys && key < T ? channels(k, k_head, key, d) : make_float4(0, 0, 0, 0);
    }
  };
  const auto next_keys = [&](int step, bool again) -> const unsigned* {
    unsigned* tile = k_tiles + (STAY ? step : step % 2) * X::tile_words;
    const unsigned* from = tile + (key_group * 8 * X::tiles + g) * X::words + t;
    if (STAY && again) return from;
#pragma unroll
    for (int n = 0; n < parts; ++n) {
      const int row = n * rows_at_once + own_row;
      if (row >= X::keys) continue;
      unsigned* to = tile + row * X::words + d / 2;
      to[0] = to_bf16s(coming[n].x, coming[n].y), to[1] = to_bf16s(coming[n].z, coming[n].w);
    }
    __syncthreads();  // this step's keys are there for all, and nobody reads the ones before
    if (step + 1 < steps)
      fetch_keys(step + 1);
    else if (!STAY && !again)
      fetch_keys(0);
    return from;
  };
  fetch_keys(0);
  copy_rows<W, X::rows, X::threads>(q_tile, X::stride, q, q.of(batch_head), i0);
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();  // the queries are there

  // Queries g, g + 8, g + 16, g + 24 of the warp's 32.
  unsigned a[2][W / 16][4];
  const float* q_rows = q_tile + (row_group * 32 + g) * X::stride + 2 * t;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int c = 0; c < W / 16; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 x = load2(q_rows + (16 * m + i % 2 * 8) * X::stride + 16 * c + i / 2 * 8);
        a[m][c][i] = to_bf16s(x.x, x.y);
      }
  // The rough scores of the warp's keys of a step: use(n, r, e, score) for the lane's query r of
  // its four and key 8n + 2t + e.
  const auto for_rough_scores = [&](const unsigned* step_keys, const auto& use) {
#pragma unroll
    for (int n = 0; n < X::tiles; ++n) {
      const unsigned* tile = step_keys + 8 * n * X::words;
      float s[2][4] = {};
#pragma unroll
      for (int c = 0; c < W / 16; ++c) {
        const unsigned b[2] = {tile[8 * c], tile[8 * c + 4]};
#pragma unroll
        for (int m = 0; m < 2; ++m) multiply_bf16(s[m], a[m][c], b);
      }
#pragma unroll
      for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int e = 0; e < 2; ++e) use(n, r, e, s[r / 2][r % 2 * 2 + e]);
    }
  };

  // --- 1: maxima ---------------------------------------------------------------------------------
  float top[4][X::lane_maxima], most_square = 0;
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int e = 0; e < X::lane_maxima; ++e) top[r][e] = -INFINITY;
  for (int step = 0; step < steps; ++step) {
#pragma unroll
    for (int n = 0; n < parts; ++n) {
      const float square = sum_of_lanes<row_lanes>(dot(coming[n], coming[n]));
      most_square = square < INFINITY ? fmaxf(most_square, square) : INFINITY;
    }
    const unsigned* step_keys = next_keys(step, false);
    const int left = T - step * X::keys - key_group * 8 * X::tiles - 2 * t;
    const bool all = (step + 1) * X::keys <= T;
    for_rough_scores(step_keys, [&](int n, int r, int e, float score) {
      if (!all && 8 * n + e >= left) return;
      float& best = top[r][e + 2 * n % X::lane_maxima];
      best = fmaxf(best, score);
    });
  }
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int e = 0; e < X::lane_maxima; ++e)
      all_scores[(row_group * 32 + g + 8 * r) * X::table + (key_group * 4 + t) * X::lane_maxima +
                 e] = top[r][e];
#pragma unroll
  for (int lanes = 16; lanes >= row_lanes; lanes /= 2)
    most_square = fmaxf(most_square, __shfl_xor_sync(all_lanes, most_square, lanes));
  if (lane == 0) squares[warp] = most_square;
  __syncthreads();  // the maxima are there

  // --- 2: thresholds, four lanes a query ---------------------------------------------------------
  const int row = int(threadIdx.x) / 4, part = int(threadIdx.x) % 4;
  float* row_scores = all_scores + row * X::table;
  int* row_keys = all_keys + row * X::table;
  const float* q_row = q_tile + row * X::stride;
  {
    float largest[K], square = 0;
#pragma unroll
    for (int e = 0; e < K; ++e) largest[e] = -INFINITY;
#pragma unroll
    for (int e = 0; e < X::maxima / 4; ++e) insert(largest, row_scores[part * X::maxima / 4 + e]);
#pragma unroll
    for (int lanes = 1; lanes <= 2; lanes *= 2) {
      float others[K];
#pragma unroll
      for (int e = 0; e < K; ++e) others[e] = __shfl_xor_sync(all_lanes, largest[e], lanes);
#pragma unroll
      for (int e = 0; e < K; ++e) insert(largest, others[e]);
    }
#pragma unroll
    for (int c = 0; c < W / 4; ++c) square += q_row[part * (W / 4) + c] * q_row[part * (W / 4) + c];
    square = sum_of_lanes<4>(square);
    float keys_square = 0;
#pragma unroll
    for (int w = 0; w < X::threads / 32; ++w) keys_square = fmaxf(keys_square, squares[w]);
    float bound = largest[0];  // of the kept-th maximum
#pragma unroll
    for (int e = 1; e < K; ++e)
      if (e < kept) bound = largest[e];
    const auto in_range = [](float x) { return x > 1e-30f && x < 1e30f; };
    const bool usable = in_range(square) && in_range(keys_square);
    const float margin = 1.0625f / 256 * sqrtf(square) * sqrtf(keys_square);
    if (part == 0) {
      thresholds[row] = usable ? bound - 2 * margin : INFINITY;
      counts[row] = usable ? 0 : X::most + 1;
    }
  }
  __syncthreads();  // the thresholds are there
  float threshold[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) threshold[r] = thresholds[row_group * 32 + g + 8 * r];

  for (int step = 0; step < steps; ++step) {
    const unsigned* step_keys = next_keys(step, true);
    unsigned found = 0;  // bit 8n + 2r + e
    for_rough_scores(step_keys, [&](int n, int r, int e, float score) {
      if (score >= threshold[r]) found |= 1u << (8 * n + 2 * r + e);
    });
    while (found != 0) {
      const int bit = __ffs(int(found)) - 1, r = bit / 2 % 4;
      found &= found - 1;
      const int key = step * X::keys + (key_group * X::tiles + bit / 8) * 8 + 2 * t + bit % 2;
      if (key >= T) continue;
      const int to = row_group * 32 + g + 8 * r, place = atomicAdd(counts + to, 1);
      if (place < X::most) all_keys[to * X::table + place] = key;
    }
  }
  __syncthreads();  // the candidates are there

  // --- 3: exact scores, and the choice, a lane a query ------------------------------------------
  score_candidates<X, W>(counts + 8 * warp, all_keys + 8 * warp * X::table,
                         all_scores + 8 * warp * X::table, q_tile + 8 * warp * X::stride, k, k_head,
                         candidate_rows + warp * X::batch_floats);
  if (part == 0 && i0 + row < T) {
    BestKeys<K> best;
    const int count = counts[row];
    if (count <= X::most) {
#pragma unroll
      for (int e = 0; e < K; ++e) best.score[e] = -INFINITY;
      for (int e = 0; e < count; ++e) offer_unordered(best, row_scores[e], row_keys[e]);
    } else {
      offer_all<W>(best, q_row, k, k_head);
    }
    best.finish(kept, scale * log2_e);
#pragma unroll
    for (int e = 0; e < K; ++e) {
      row_keys[e] = best.key[e];
      float w = best.score[e];
      if (e < kept) {
        const ptrdiff_t to = (ptrdiff_t{batch_head} * T + i0 + row) * kept + e;
        keys[to] = best.key[e], p[to] = w;
        if (keep.words) w *= keep.factor(size_t(batch_head) * size_t(T) + size_t(i0 + row), e);
      }
      row_scores[e] = w;
    }
  }
  __syncwarp();  // the result is there

  // W/4 lanes a row read the kept rows of V, those of several queries before the first is needed.
  constexpr int at_once = 32 / row_lanes, together = K <= 5 ? 4 : K <= 8 ? 2 : 1;
  for (int first = 0; first < 8; first += together * at_once) {
    float4 values[together][K];
#pragma unroll
    for (int n = 0; n < together; ++n)
#pragma unroll
      for (int e = 0; e < K; ++e) {
        const int r = 8 * warp + first + n * at_once + lane / row_lanes;
        values[n][e] = e < kept && r < 8 * warp + 8 && i0 + r < T
                           ? channels(v, v_head, all_keys[r * X::table + e], d)
                           : make_float4(0, 0, 0, 0);
      }
#pragma unroll
    for (int n = 0; n < together; ++n) {
      const int r = 8 * warp + first + n * at_once + lane / row_lanes;
      if (r >= 8 * warp + 8 || i0 + r >= T) continue;
      float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
      for (int e = 0; e < K; ++e) add_scaled(sum, all_scores[r * X::table + e], values[n][e]);
      set_channels(o, batch_head, i0 + r, d, sum);
    }
  }
}

}  // namespace

const Rung topk_17_forward{
    17,
    "top-k: screened by tensor cores",
    Pass::forward,
    is_topk,
    true,
    [](const Call& c) -> std::string {
      if (std::string why = wider_than_64(c); !why.empty()) return why;
      if (std::string why = tensor_core_problem(); !why.empty()) return why;
      const std::string why = unsupported_list(c);
      return why.empty() ? too_little_shared_memory(Screen<64, longest_list>::shared_bytes) : why;
    },
    no_workspace,
    [](Pattern, const Call& c) {
      for_width_up_to_64(c.q.D, [&](auto width) {
        for_list(c.kept, [&](auto list) {
          using X = Screen<decltype(width)::value, decltype(list)::value>;
          const auto start = [&](auto kernel) {
            launch({"topk_fwd_17", size_t(tiles_of(c.q.T, X::rows)) * size_t(c.q.B * c.q.H),
                    X::threads, X::shared_bytes},
                   c.stream, kernel, c.q, c.k, c.v, c.o, c.keys, c.p, c.keep, c.kept, c.scale());
          };
          constexpr int W = decltype(width)::value, K = decltype(list)::value;
          if (tiles_of(c.q.T, X::keys) * X::tile_words <= X::rows_or_tiles)
            start(topk_fwd_17<W, K, true>);
          else
            start(topk_fwd_17<W, K, false>);
        });
      });
    },
    {.dropout = true, .screening = true}};

}  // namespace focus::gpu
