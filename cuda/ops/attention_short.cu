// Attention of short sequences where no backward follows, as in evaluation: a block computes one
// head of one sequence and keeps nothing but the output. Up to 64 tokens, 64 wide, all keys or the
// k largest or smallest.
//
// A thread's tile of the scores is ROWS queries, 8 apart, by KEYS keys, 16 apart: it reads
// ROWS + KEYS rows from shared memory for ROWS · KEYS products, where a warp for each query
// (attention_rows.cu) reads two numbers for each product. A query's scores lie in 16 lanes of one
// warp, in registers: softmax and choice take shuffles, and the weights replace the query in shared
// memory, so that a block waits twice, for queries and keys and for the values.
#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"
#include "cuda/ops/attention_steps.h"

namespace focus::gpu {

namespace {

constexpr int D = 64, threads = 128;
constexpr int PITCH = D + 4;  // of a query or key: eight one after the other lie in different banks
constexpr int most_chosen = 16;

// Starts copying `rows` rows of a head, and zeros after the last token.
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
  ThreadPosition<16> at;
  unsigned row_lanes;  // of the warp, those that hold the same rows
  float s[ROWS][KEYS] = {};
  unsigned kept[ROWS] = {};

  __device__ Scores() : row_lanes(0x33333333u << 2 * at.row_in_warp) {}
  __device__ int row(int a) const { return at.y + 8 * a; }
  __device__ int key(int b) const { return at.x + 16 * b; }
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
  __device__ void choose(int T, int k, float sign) {
    for (int found = 0; found < k; ++found)
#pragma unroll
      for (int a = 0; a < ROWS; ++a) {
        float best = -INFINITY;
#pragma unroll
        for (int b = 0; b < KEYS; ++b)
          if (left(a, b, T)) best = fmaxf(best, sign * s[a][b]);
        best = row_max(best);
        bool open = true;  // nothing is found yet
#pragma unroll
        for (int b = 0; b < KEYS; ++b) {  // in a row of lanes, keys ascend
          const unsigned equal = lanes(left(a, b, T) && sign * s[a][b] == best);
          const bool first = (equal & (0u - equal)) == 1u << (threadIdx.x % 32);
          kept[a] |= unsigned(open && first) << b;
          open = open && equal == 0;
        }
      }
  }
  // s := their softmax, 0 where a key is not kept. A row with a NaN keeps its first k keys, and has
  // no other weights than NaN.
  __device__ void softmax(int T, int k, float scale) {
#pragma unroll
    for (int a = 0; a < ROWS; ++a) {
      bool nan = false;
      float top = -INFINITY, sum = 0;
#pragma unroll
      for (int b = 0; b < KEYS; ++b) {
        nan |= key(b) < T && s[a][b] != s[a][b];
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
      if (nan) keep_first(a, k);
#pragma unroll
      for (int b = 0; b < KEYS; ++b) s[a][b] /= sum;
    }
  }

 private:
  __device__ bool left(int a, int b, int T) const {
    return key(b) < T && !(kept[a] >> b & 1);
  }
};

template <int ROWS>
using Output = float[ROWS][4];

__device__ __forceinline__ void add_value(float (&out)[4], float weight, float4 value) {
  out[0] += weight * value.x, out[1] += weight * value.y;
  out[2] += weight * value.z, out[3] += weight * value.w;
}

// out += the weights at p, a row each PITCH, times the values at v, D each.
template <int ROWS>
__device__ __forceinline__ void add_all(Output<ROWS>& out, const float* p, const float* v, int T) {
  for (int j = 0; j < T; j += 4) {  // weights after the last key are 0
    float4 values[4];
#pragma unroll
    for (int b = 0; b < 4; ++b) values[b] = load4(v + (j + b) * D);
#pragma unroll
    for (int a = 0; a < ROWS; ++a) {
      const float4 w = load4(p + 8 * a * PITCH + j);
      add_value(out[a], w.x, values[0]), add_value(out[a], w.y, values[1]);
      add_value(out[a], w.z, values[2]), add_value(out[a], w.w, values[3]);
    }
  }
}
// The same of `count` pairs, a weight and its key.
template <int ROWS>
__device__ __forceinline__ void add_listed(Output<ROWS>& out, const float* p, const float* v,
                                           int count) {
  for (int e = 0; e < count; ++e)
#pragma unroll
    for (int a = 0; a < ROWS; ++a) {
      const float2 entry = load2(p + 8 * a * PITCH + 2 * e);
      add_value(out[a], entry.x, load4(v + int(__float_as_uint(entry.y)) * D));
    }
}

template <int ROWS, int KEYS>
__global__ void __launch_bounds__(threads) attention_short_kernel(AttentionCall c) {
  constexpr int rows = 8 * ROWS;
  SharedMemory shared;
  float *const q = shared.array<float>(rows * PITCH), *const k = shared.array<float>(rows * PITCH);
  float* const v = shared.array<float>(rows * D);
  wait_for_previous();
  stage(c, c.q, rows, q, PITCH), stage(c, c.k_rows, rows, k, PITCH), stage(c, c.v, rows, v, D);
  __pipeline_wait_prior(1);
  __syncthreads();  // queries and keys are there

  Scores<ROWS, KEYS> scores;
  float* const own = q + scores.at.y * PITCH;  // the first of the thread's rows
#pragma unroll
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
    for (int a = 0; a < ROWS; ++a) scores.keep_first(a, count);
  else
    scores.choose(c.T, count, c.pattern == Pattern::topk ? 1.f : -1.f);
  scores.softmax(c.T, count, c.scale);
  __syncwarp();  // the warp does not read its queries any more
#pragma unroll
  for (int a = 0; a < ROWS; ++a) {
    int listed = 0;
#pragma unroll
    for (int b = 0; b < KEYS; ++b) {
      if (all) {
        own[8 * a * PITCH + scores.key(b)] = scores.s[a][b];
        continue;
      }
      const bool kept = scores.kept[a] >> b & 1;
      const unsigned lanes = scores.lanes(kept);
      const int place = listed + __popc(lanes & ((1u << (threadIdx.x % 32)) - 1));
      if (kept)
        store2(own + 8 * a * PITCH + 2 * place,
               make_float2(scores.s[a][b], __uint_as_float(unsigned(scores.key(b)))));
      listed += __popc(lanes);
    }
  }
  __pipeline_wait_prior(0);
  __syncthreads();  // the values are there, and the warp's weights

  Output<ROWS> out = {};
  if (all)
    add_all<ROWS>(out, own, v + 4 * scores.at.x, c.T);
  else
    add_listed<ROWS>(out, own, v + 4 * scores.at.x, count);
#pragma unroll
  for (int a = 0; a < ROWS; ++a)
    if (scores.row(a) < c.T)
      store4(c.o + c.at(int(blockIdx.x), scores.row(a)) + size_t(4 * scores.at.x),
             make_float4(out[a][0], out[a][1], out[a][2], out[a][3]));
}

template <int ROWS, int KEYS>
void start(const AttentionCall& c, void* stream) {
  launch(early({"attention_short", size_t(c.B) * size_t(c.H), threads,
                shared_bytes_for(8 * ROWS * PITCH, 8 * ROWS * PITCH, 8 * ROWS * D)}),
         stream, attention_short_kernel<ROWS, KEYS>, c);
}

}  // namespace

bool fits_attention_short(Pattern pattern, int k, int T, int width) {
  const bool chosen = pattern == Pattern::topk || pattern == Pattern::bottomk;
  return T <= 64 && width == D && (pattern == Pattern::full || (chosen && k <= most_chosen));
}

void attention_short(const AttentionCall& c, void* stream) {
  if (c.T <= 16) return start<2, 1>(c, stream);
  if (c.T <= 32) return start<4, 2>(c, stream);
  if (c.T <= 40) return start<5, 3>(c, stream);
  if (c.T <= 48) return start<6, 3>(c, stream);
  start<8, 4>(c, stream);
}

}  // namespace focus::gpu
