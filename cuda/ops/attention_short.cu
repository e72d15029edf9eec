// Attention of short sequences where no backward follows, as in evaluation: a block computes one
// head of one sequence and keeps nothing but the output. Up to 64 tokens, 64 wide, all keys or the
// k largest or smallest.
//
// A thread's tile of the scores is ROWS queries, 8 apart, by KEYS keys, 16 apart: it reads
// ROWS + KEYS rows from shared memory for ROWS · KEYS products, where a warp for each query
// (attention_rows.cu) reads two numbers for each product.
#include "cuda/device/launch.h"
#include "cuda/ops/attention_steps.h"
#include "cuda/ops/warp.cuh"

namespace focus::gpu {

namespace {

constexpr int D = 64, threads = 128, warps = threads / 32;
constexpr int PITCH = D + 4;  // of a row: eight rows one after the other lie in different banks
constexpr int most_chosen = 16;

// `rows` rows from row 0 of a head on, and zeros after the last token.
__device__ __forceinline__ void stage(const AttentionCall& c, const float* from, int batch_head,
                                      int rows, float* to) {
  for (int e = int(threadIdx.x); e < rows * (D / 4); e += threads) {
    const int row = e / (D / 4), d = e % (D / 4) * 4;
    store4(to + row * PITCH + d,
           row < c.T ? load4(from + c.at(batch_head, row) + size_t(d)) : make_float4(0, 0, 0, 0));
  }
}

__device__ __forceinline__ float dot4(float4 a, float4 b, float sum) {
  sum += a.x * b.x, sum += a.y * b.y, sum += a.z * b.z, sum += a.w * b.w;
  return sum;
}

// A lane holds the scores of keys `lane` and `lane + 32`; which of them are among the k largest
// (sign 1) or smallest (sign -1)? Of equal ones the lower key. Each round finds one.
struct Chosen {
  bool low = false, high = false;
};
__device__ __forceinline__ Chosen choose(float low, float high, int T, int k, float sign) {
  const int lane = threadIdx.x % 32;
  Chosen chosen{lane >= T, lane + 32 >= T};  // taken: what is not there cannot be found
  for (int found = 0; found < k; ++found) {
    const float a = chosen.low ? -INFINITY : sign * low, b = chosen.high ? -INFINITY : sign * high;
    const float best = warp_max(fmaxf(a, b));
    const unsigned first = __ballot_sync(all_lanes, !chosen.low && a == best);
    const unsigned second = __ballot_sync(all_lanes, !chosen.high && b == best);
    const unsigned lowest = first ? first : second;
    if ((lowest & (0u - lowest)) == 1u << lane) (first ? chosen.low : chosen.high) = true;
  }
  return {chosen.low && lane < T, chosen.high && lane + 32 < T};
}

template <int ROWS, int KEYS>
__global__ void attention_short_kernel(AttentionCall c) {
  constexpr int P_PITCH = 16 * KEYS + 4;
  SharedMemory shared;
  float* const q = shared.array<float>(8 * ROWS * PITCH);
  float* const k = shared.array<float>(16 * KEYS * PITCH);
  float* const v = shared.array<float>(16 * KEYS * PITCH);
  float* const p = q;  // once the scores are there
  const int batch_head = int(blockIdx.x), lane = threadIdx.x % 32;
  stage(c, c.q, batch_head, 8 * ROWS, q);
  stage(c, c.k_rows, batch_head, 16 * KEYS, k);
  stage(c, c.v, batch_head, 16 * KEYS, v);
  __syncthreads();

  const int row = int(threadIdx.x) / 16, column = int(threadIdx.x) % 16;
  float s[ROWS][KEYS] = {};
#pragma unroll
  for (int d = 0; d < D; d += 4) {
    float4 keys[KEYS];
#pragma unroll
    for (int b = 0; b < KEYS; ++b) keys[b] = load4(k + (column + 16 * b) * PITCH + d);
#pragma unroll
    for (int a = 0; a < ROWS; ++a) {
      const float4 query = load4(q + (row + 8 * a) * PITCH + d);
#pragma unroll
      for (int b = 0; b < KEYS; ++b) s[a][b] = dot4(query, keys[b], s[a][b]);
    }
  }
  __syncthreads();
#pragma unroll
  for (int a = 0; a < ROWS; ++a)
#pragma unroll
    for (int b = 0; b < KEYS; ++b) p[(row + 8 * a) * P_PITCH + column + 16 * b] = s[a][b];
  __syncthreads();

  const bool all = c.pattern == Pattern::full;
  for (int i = int(threadIdx.x) / 32; i < c.T; i += warps) {
    float* const scores = p + i * P_PITCH;
    const float low = lane < c.T ? scores[lane] : 0, high = lane + 32 < c.T ? scores[lane + 32] : 0;
    Chosen kept{lane < c.T, lane + 32 < c.T};
    const bool nan = __any_sync(all_lanes, low != low || high != high);
    if (!all && !nan) kept = choose(low, high, c.T, c.k, c.pattern == Pattern::topk ? 1.f : -1.f);
    const float top = warp_max(fmaxf(kept.low ? low : -INFINITY, kept.high ? high : -INFINITY));
    float weight = kept.low ? expf(c.scale * (low - top)) : 0,
          other = kept.high ? expf(c.scale * (high - top)) : 0;
    const float sum = warp_sum(weight + other);
    weight /= sum, other /= sum;
    if (nan) weight = other = NAN;  // whatever was chosen
    if (all) {
      if (lane < 16 * KEYS) scores[lane] = weight;
      if (lane + 32 < 16 * KEYS) scores[lane + 32] = other;
      continue;
    }
    const unsigned which[2] = {__ballot_sync(all_lanes, kept.low),
                               __ballot_sync(all_lanes, kept.high)};
    float out[2] = {0, 0};
    for (int half = 0; half < 2; ++half)
      for (unsigned left = which[half]; left; left &= left - 1) {
        const int from = __popc((left & (0u - left)) - 1);
        const float w = __shfl_sync(all_lanes, half ? other : weight, from);
        const float* const value = v + (32 * half + from) * PITCH;
        out[0] += w * value[lane], out[1] += w * value[lane + 32];
      }
    float* const o = c.o + c.at(batch_head, i);
    o[lane] = out[0], o[lane + 32] = out[1];
  }
  if (!all) return;
  __syncthreads();

  float out[ROWS][4] = {};
  for (int j = 0; j < c.T; j += 4) {  // weights and values after the last key are 0
    float4 values[4];
#pragma unroll
    for (int b = 0; b < 4; ++b) values[b] = load4(v + (j + b) * PITCH + 4 * column);
#pragma unroll
    for (int a = 0; a < ROWS; ++a) {
      const float4 w = load4(p + (row + 8 * a) * P_PITCH + j);
      const float weights[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
      for (int b = 0; b < 4; ++b) {
        out[a][0] += weights[b] * values[b].x, out[a][1] += weights[b] * values[b].y;
        out[a][2] += weights[b] * values[b].z, out[a][3] += weights[b] * values[b].w;
      }
    }
  }
#pragma unroll
  for (int a = 0; a < ROWS; ++a)
    if (row + 8 * a < c.T)
      store4(c.o + c.at(batch_head, row + 8 * a) + size_t(4 * column),
             make_float4(out[a][0], out[a][1], out[a][2], out[a][3]));
}

template <int ROWS, int KEYS>
void start(const AttentionCall& c, void* stream) {
  launch({"attention_short", size_t(c.B) * size_t(c.H), threads,
          shared_bytes_for(8 * ROWS * PITCH, 16 * KEYS * PITCH, 16 * KEYS * PITCH)},
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
