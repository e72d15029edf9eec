// Attention of short sequences: a block computes one head of one sequence and keeps nothing but the
// output and, for a backward, either the log of the sum of a row's weights or its k keys and their
// weights. Up to 64 tokens, 64 or 128 wide; all keys that a query sees, or the k largest or
// smallest.
//
// A thread's tile of the scores is ROWS queries, 8 apart, by KEYS keys, 16 apart: it reads
// ROWS + KEYS rows from shared memory for ROWS · KEYS products, where a warp for each query
// (attention_rows.cu) reads two numbers for each product. A query's scores lie in 16 lanes of one
// warp, in registers: softmax and choice take shuffles, and the weights replace the query in shared
// memory, so that a block waits twice, for queries and keys and for the values.
//
// Measured on an H200, each launch alone: 1632 heads of 40 tokens, 64 wide, 50 µs (predicted: 30;
// 75 with scores and weights in shared memory), top-5 76; 512 heads of 64 tokens, 128 wide, 77 µs
// (predicted: 40; rung 04: 97), top-5 100 (rung 09: 141).
#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"
#include "cuda/ops/attention_steps.h"

namespace focus::gpu {

namespace {

constexpr int threads = 128, most_chosen = 32;
// Of a query or key: eight one after the other lie in different banks.
template <int D>
constexpr int pitch_of = D + 4;

// Starts copying `rows` rows of a head, and zeros after the last token.
template <int D>
__device__ __forceinline__ void stage(const AttentionCall& c, const float* from, int rows,
                                      float* to, int pitch) {
  from += c.at(int(blockIdx.x), 0);
  for (int e = int(threadIdx.x); e < rows * (D / 4); e += threads) {
    const int row = e / (D / 4), d = e % (D / 4) * 4;
    copy_or_zero<4>(to + row * pitch + d, from + size_t(min(row, c.T - 1)) * size_t(c.H * D) + d,
                    row < c.T);
  }
  __pipeline_commit();
}

__device__ __forceinline__ float dot4(float4 a, float4 b, float sum) {
  sum += a.x * b.x, sum += a.y * b.y, sum += a.z * b.z, sum += a.w * b.w;
  return sum;
}

// A thread's scores, and what becomes of them. Bit b of a row's `kept`: key(b) is one of its keys.
template <int ROWS, int KEYS>
struct Scores {
  int T;
  bool causal;
  ThreadPosition<16> at;
  unsigned row_lanes;  // of the warp, those that hold the same rows
  float s[ROWS][KEYS] = {};
  unsigned kept[ROWS] = {};

  __device__ explicit Scores(const AttentionCall& c)
      : T(c.T), causal(c.causal), row_lanes(0x33333333u << 2 * at.row_in_warp) {}
  __device__ int row(int a) const { return at.y + 8 * a; }
  __device__ int key(int b) const { return at.x + 16 * b; }
  __device__ int seen(int a) const { return causal ? min(row(a) + 1, T) : T; }  // keys
  static __device__ float row_max(float x) { return ThreadPosition<16>::reduce_row(x, Maximum{}); }
  __device__ unsigned lanes(bool which) const {
    return __ballot_sync(all_lanes, which) & row_lanes;
  }

  __device__ void keep_first(int a, int count) {
    kept[a] = 0;
#pragma unroll
    for (int b = 0; b < KEYS; ++b) kept[a] |= unsigned(key(b) < count) << b;
  }
  // The k largest (sign 1) or smallest (sign -1), of equal ones the lower key. A turn finds one.
  __device__ void choose(int k, float sign) {
    for (int found = 0; found < k; ++found)
#pragma unroll
      for (int a = 0; a < ROWS; ++a) {
        float best = -INFINITY;
#pragma unroll
        for (int b = 0; b < KEYS; ++b)
          if (left(a, b)) best = fmaxf(best, sign * s[a][b]);
        best = row_max(best);
        bool open = true;  // nothing is found yet
#pragma unroll
        for (int b = 0; b < KEYS; ++b) {  // in a row of lanes, keys ascend
          const unsigned equal = lanes(left(a, b) && sign * s[a][b] == best);
          const bool first = (equal & (0u - equal)) == 1u << (threadIdx.x % 32);
          kept[a] |= unsigned(open && first) << b;
          open = open && equal == 0;
        }
      }
  }
  // s := their softmax, 0 where a key is not kept. A row with a NaN keeps its first k keys, and has
  // no other weights than NaN. lse: the logs of the sums of exp(scale · score).
  __device__ void softmax(int k, float scale, float (&lse)[ROWS]) {
#pragma unroll
    for (int a = 0; a < ROWS; ++a) {
      bool nan = false;
      float top = -INFINITY, sum = 0;
#pragma unroll
      for (int b = 0; b < KEYS; ++b) {
        nan |= key(b) < seen(a) && s[a][b] != s[a][b];
        if (kept[a] >> b & 1) top = fmaxf(top, s[a][b]);
      }
      nan = lanes(nan) != 0;
      top = row_max(top);
#pragma unroll
      for (int b = 0; b < KEYS; ++b) {
        s[a][b] = kept[a] >> b & 1 ? expf(scale * (s[a][b] - top)) : 0.f;
        sum += s[a][b];
      }
      sum = ThreadPosition<16>::reduce_row(sum, Sum{});
      if (nan) sum = NAN;
      lse[a] = scale * top + logf(sum);
      if (nan) keep_first(a, min(k, seen(a)));
#pragma unroll
      for (int b = 0; b < KEYS; ++b) s[a][b] /= sum;
    }
  }

 private:
  __device__ bool left(int a, int b) const {
    return key(b) < seen(a) && !(kept[a] >> b & 1);
  }
};

// Of each row D / 64 vectors, 64 numbers apart.
template <int D, int ROWS>
using Output = float4[ROWS][D / 64];

__device__ __forceinline__ void add_value(float4& out, float weight, float4 value) {
  out.x += weight * value.x, out.y += weight * value.y;
  out.z += weight * value.z, out.w += weight * value.w;
}

// out += the weights at p, a row each pitch, times the values at v, D each.
template <int D, int ROWS>
__device__ __forceinline__ void add_all(Output<D, ROWS>& out, const float* p, const float* v,
                                        int T) {
  for (int j = 0; j < T; j += 4) {  // weights after the last key are 0
#pragma unroll
    for (int h = 0; h < D / 64; ++h) {
      float4 values[4];
#pragma unroll
      for (int b = 0; b < 4; ++b) values[b] = load4(v + (j + b) * D + 64 * h);
#pragma unroll
      for (int a = 0; a < ROWS; ++a) {
        const float4 w = load4(p + 8 * a * pitch_of<D> + j);
        add_value(out[a][h], w.x, values[0]), add_value(out[a][h], w.y, values[1]);
        add_value(out[a][h], w.z, values[2]), add_value(out[a][h], w.w, values[3]);
      }
    }
  }
}
// The same of `count` pairs, a weight and its key.
template <int D, int ROWS>
__device__ __forceinline__ void add_listed(Output<D, ROWS>& out, const float* p, const float* v,
                                           int count) {
  for (int e = 0; e < count; ++e)
#pragma unroll
    for (int a = 0; a < ROWS; ++a) {
      const float2 entry = load2(p + 8 * a * pitch_of<D> + 2 * e);
#pragma unroll
      for (int h = 0; h < D / 64; ++h)
        add_value(out[a][h], entry.x, load4(v + int(__float_as_uint(entry.y)) * D + 64 * h));
    }
}

// Blocks for which a multiprocessor has shared memory.
template <int D, int ROWS>
[[maybe_unused]] constexpr int at_once = D == 128    ? 2
                                         : ROWS <= 5 ? 7
                                                     : 4;

template <int D, int ROWS, int KEYS>
__global__ void __launch_bounds__(threads, at_once<D, ROWS>)
    attention_short_kernel(AttentionCall c) {
  constexpr int rows = 8 * ROWS, PITCH = pitch_of<D>;
  SharedMemory shared;
  float *const q = shared.array<float>(rows * PITCH), *const k = shared.array<float>(rows * PITCH);
  float* const v = shared.array<float>(rows * D);
  const int batch_head = int(blockIdx.x);
  wait_for_previous();
  stage<D>(c, c.q, rows, q, PITCH), stage<D>(c, c.k_rows, rows, k, PITCH);
  stage<D>(c, c.v, rows, v, D);
  __pipeline_wait_prior(1);
  __syncthreads();  // queries and keys are there

  Scores<ROWS, KEYS> scores(c);
  float* const own = q + scores.at.y * PITCH;  // the first of the thread's rows
#pragma unroll 8
  for (int d = 0; d < D; d += 4) {
    float4 keys[KEYS];
#pragma unroll
    for (int b = 0; b < KEYS; ++b) keys[b] = load4(k + min(scores.key(b), rows - 1) * PITCH + d);
#pragma unroll
    for (int a = 0; a < ROWS; ++a) {
      const float4 query = load4(own + 8 * a * PITCH + d);
#pragma unroll
      for (int b = 0; b < KEYS; ++b) scores.s[a][b] = dot4(query, keys[b], scores.s[a][b]);
    }
  }
  const bool all = c.pattern == Pattern::full;
  const int count = all ? c.T : min(c.k, c.T);
  if (all)
#pragma unroll
    for (int a = 0; a < ROWS; ++a) scores.keep_first(a, scores.seen(a));
  else
    scores.choose(count, c.pattern == Pattern::topk ? 1.f : -1.f);
  float lse[ROWS];
  scores.softmax(count, c.scale, lse);
  __syncwarp();  // the warp does not read its queries any more
#pragma unroll
  for (int a = 0; a < ROWS; ++a) {
    const int row = scores.row(a);
    if (c.lse && row < c.T && scores.at.x == 0)
      c.lse[size_t(batch_head) * size_t(c.T) + size_t(row)] = lse[a];
    if (all) {
#pragma unroll
      for (int b = 0; b < KEYS; ++b) {
        const int key = scores.key(b);
        const float kept = row < c.T && key < c.T ? c.factor(batch_head, row, key) : 0.f;
        own[8 * a * PITCH + key] = kept * scores.s[a][b];
      }
      continue;
    }
    int listed = 0;
    const auto list = [&](int place, int key, float weight) {
      float kept = 1;
      if (row < c.T && c.p && (c.k_places || place < scores.seen(a))) {
        const size_t e = c.k_places ? (size_t(batch_head) * size_t(c.T) + size_t(row)) * size_t(c.k)
                                    : size_t(batch_head) * size_t(c.nnz) + size_t(c.begin[row]);
        c.keys[e + size_t(place)] = key, c.p[e + size_t(place)] = weight;
        kept = c.factor(batch_head, row, place);
      }
      store2(own + 8 * a * PITCH + 2 * place,
             make_float2(kept * weight, __uint_as_float(unsigned(key))));
    };
#pragma unroll
    for (int b = 0; b < KEYS; ++b) {
      const bool kept = scores.kept[a] >> b & 1;
      const unsigned lanes = scores.lanes(kept);
      if (kept)
        list(listed + __popc(lanes & ((1u << (threadIdx.x % 32)) - 1)), scores.key(b),
             scores.s[a][b]);
      listed += __popc(lanes);
    }
    // A query that sees fewer has all of them; the list has others, without weight.
    for (int place = scores.at.x; place < count; place += 16)
      if (place >= listed) list(place, place, 0);
  }
  __pipeline_wait_prior(0);
  __syncthreads();  // the values are there, and the warp's weights

  Output<D, ROWS> out = {};
  if (all)
    add_all<D, ROWS>(out, own, v + 4 * scores.at.x, c.T);
  else
    add_listed<D, ROWS>(out, own, v + 4 * scores.at.x, count);
#pragma unroll
  for (int a = 0; a < ROWS; ++a)
#pragma unroll
    for (int h = 0; h < D / 64; ++h)
      if (scores.row(a) < c.T)
        store4(c.o + c.at(batch_head, scores.row(a)) + size_t(64 * h + 4 * scores.at.x), out[a][h]);
}

template <int D, int ROWS, int KEYS>
void start(const AttentionCall& c, void* stream) {
  constexpr int rows = 8 * ROWS;
  launch(early({"attention_short", size_t(c.B) * size_t(c.H), threads,
                shared_bytes_for(rows * pitch_of<D>, rows * pitch_of<D>, rows * D)}),
         stream, attention_short_kernel<D, ROWS, KEYS>, c);
}

template <int D>
void start(const AttentionCall& c, void* stream) {
  if (c.T <= 16) return start<D, 2, 1>(c, stream);
  if (c.T <= 32) return start<D, 4, 2>(c, stream);
  if (c.T <= 40) return start<D, 5, 3>(c, stream);
  if (c.T <= 48) return start<D, 6, 3>(c, stream);
  start<D, 8, 4>(c, stream);
}

}  // namespace

bool fits_attention_short(Pattern pattern, int k, int T, int D) {
  const bool chosen = pattern == Pattern::topk || pattern == Pattern::bottomk;
  if (T > 64 || !(pattern == Pattern::full || (chosen && k <= most_chosen))) return false;
  return D == 64 || (D == 128 && device().shared_memory >= size_t(100) * 1024);
}

void attention_short(const AttentionCall& c, void* stream) {
  c.D == 64 ? start<64>(c, stream) : start<128>(c, stream);
}

}  // namespace focus::gpu
