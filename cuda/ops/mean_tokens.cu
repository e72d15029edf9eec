// The mean over a sequence's tokens: a block for each sequence, whose warps share out the tokens.
#include <algorithm>

#include "cuda/device/launch.h"
#include "cuda/ops/ops.h"
#include "cuda/simt/simt.h"

namespace focus::gpu {

namespace {

constexpr int ahead = 20;  // tokens that are read before they are added

// As many warps as 128 KB of partial sums allow, and eight tokens for each.
int warps_for(int T, int C) {
  return std::clamp(std::min(32768 / C, T / 8), 1, 32);
}

// V neighbouring channels a lane, which V divides the channels into.
template <int V>
__global__ void __launch_bounds__(1024) mean_forward(const float* x, float* y, int T, int C) {
  SharedMemory shared;
  const int warps = int(blockDim.x) / 32;
  float* partial = shared.array<float>(warps * C);
  const int warp = int(threadIdx.x) / 32, lane = threadIdx.x % 32;
  const float* sequence = x + size_t(blockIdx.x) * size_t(T) * size_t(C);
  for (int c = lane * V; c < C; c += 32 * V) {
    float sum[V] = {};
    for (int t0 = warp; t0 < T; t0 += ahead * warps) {
      float next[ahead][V];
#pragma unroll
      for (int e = 0; e < ahead; ++e) {
        const int t = t0 + e * warps;
        const float* at = sequence + size_t(t) * size_t(C) + size_t(c);
        if constexpr (V == 2) {
          const float2 both = t < T ? load2(at) : make_float2(0, 0);
          next[e][0] = both.x, next[e][1] = both.y;
        } else {
          next[e][0] = t < T ? *at : 0.f;
        }
      }
#pragma unroll
      for (int e = 0; e < ahead; ++e)
#pragma unroll
        for (int i = 0; i < V; ++i) sum[i] += next[e][i];
    }
#pragma unroll
    for (int i = 0; i < V; ++i) partial[warp * C + c + i] = sum[i];
  }
  __syncthreads();
  for (int c = int(threadIdx.x); c < C; c += int(blockDim.x)) {
    float sum = 0;
    for (int w = 0; w < warps; ++w) sum += partial[w * C + c];
    y[size_t(blockIdx.x) * size_t(C) + size_t(c)] = sum / float(T);
  }
}

// A warp for each token.
__global__ void mean_backward(const float* dy, float* dx, int T, int C, int rows) {
  const int row = int(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), lane = threadIdx.x % 32;
  if (row >= rows) return;
  const float* from = dy + size_t(row / T) * size_t(C);
  float* to = dx + size_t(row) * size_t(C);
  for (int c = lane; c < C; c += 32) to[c] = from[c] / float(T);
}

}  // namespace

void mean_tokens_forward(int B, int T, int C, const float* x, float* y, void* stream) {
  const int warps = warps_for(T, C);
  launch({"mean_forward", size_t(B), 32 * warps, shared_bytes_for(warps * C)}, stream,
         C % 2 == 0 ? mean_forward<2> : mean_forward<1>, x, y, T, C);
}

void mean_tokens_backward(int B, int T, int C, const float* dy, float* dx, void* stream) {
  launch({"mean_backward", size_t(B * T + 7) / 8, 256}, stream, mean_backward, dy, dx, T, C, B * T);
}

}  // namespace focus::gpu
