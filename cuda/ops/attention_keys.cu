// The keys' half of attention's backward: a warp for each key adds up the queries that keep it, in
// their order, so that no atomics are needed and the bits are always the same.
#include "cuda/device/launch.h"
#include "cuda/ops/attention_steps.h"

namespace focus::gpu {

namespace {

constexpr int warps = 4;

// Where row i of the batch_head has key j: its entry, or -1.
__device__ int entry_of(const AttentionCall& c, const int* keys, int i, int j) {
  const int first = c.begin[i], count = c.begin[i + 1] - first;
  if (!keys) return j < count ? j : -1;
  int low = 0, high = count;  // the lists ascend
  while (low < high) {
    const int middle = (low + high) / 2;
    if (keys[first + middle] < j)
      low = middle + 1;
    else
      high = middle;
  }
  return low < count && keys[first + low] == j ? low : -1;
}

__global__ void attention_keys_kernel(AttentionCall c, AttentionGradients g) {
  const int lane = threadIdx.x % 32;
  const size_t row = size_t(blockIdx.x) * warps + threadIdx.x / 32;
  const int batch_head = int(row / size_t(c.T)), j = int(row % size_t(c.T));
  if (batch_head >= c.B * c.H) return;
  const int* keys = c.keys ? c.keys_of(batch_head) : nullptr;
  const float* p = c.p + size_t(batch_head) * size_t(c.nnz);
  const float* ds = g.ds + size_t(batch_head) * size_t(c.nnz);
  for (int d0 = 0; d0 < c.D; d0 += 64) {  // two channels a lane
    float dk[2] = {}, dv[2] = {};
    for (int i0 = c.causal ? j / 32 * 32 : 0; i0 < c.T; i0 += 32) {
      // Each lane looks at one query; then all add the queries found, in order.
      const int own = i0 + lane, e = own < c.T ? entry_of(c, keys, own, j) : -1;
      const float weight = e >= 0 ? p[c.begin[own] + e] * c.factor(batch_head, own, e) : 0.f;
      const float slope = e >= 0 ? ds[c.begin[own] + e] : 0.f;
      for (unsigned left = __ballot_sync(all_lanes, e >= 0); left; left &= left - 1) {
        const int l = __ffs(left) - 1;
        const float w = __shfl_sync(all_lanes, weight, l), s = __shfl_sync(all_lanes, slope, l);
        const size_t at = c.at(batch_head, i0 + l) + size_t(d0);
#pragma unroll
        for (int x = 0; x < 2; ++x) {
          const int d = lane + 32 * x;
          if (d0 + d >= c.D) continue;
          dk[x] += s * c.q[at + size_t(d)];
          dv[x] += w * g.d_o[at + size_t(d)];
        }
      }
    }
    const size_t to = c.at(batch_head, j) + size_t(d0);
#pragma unroll
    for (int x = 0; x < 2; ++x) {
      const int d = lane + 32 * x;
      if (d0 + d >= c.D) continue;
      g.dk[to + size_t(d)] = dk[x], g.dv[to + size_t(d)] = dv[x];
    }
  }
}

}  // namespace

void attention_keys_backward(const AttentionCall& c, const AttentionGradients& g, void* stream) {
  const size_t rows = size_t(c.B) * size_t(c.H) * size_t(c.T);
  launch({"attention_keys", (rows + warps - 1) / warps, 32 * warps}, stream, attention_keys_kernel,
         c, g);
}

}  // namespace focus::gpu
