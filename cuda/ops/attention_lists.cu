// The values of chosen keys, with dropout on their weights, where a GPU is too small for the rungs
// that know dropout: a warp for each query, whose lanes share out the channels and take one key
// after the other.
#include "cuda/device/launch.h"
#include "cuda/ops/attention_steps.h"

namespace focus::gpu {

namespace {

constexpr int warps = 4;
constexpr int most = 4;  // channels of a lane

// The channels lane, lane + 32, … of a row; 0 beyond D.
struct Row {
  float x[most];
  __device__ Row(const float* from, int D) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int c = 0; c < most; ++c) x[c] = lane + 32 * c < D ? from[lane + 32 * c] : 0.f;
  }
  __device__ void add(float factor, const Row& other) {
#pragma unroll
    for (int c = 0; c < most; ++c) x[c] += factor * other.x[c];
  }
  __device__ void write(float* to, int D) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int c = 0; c < most; ++c)
      if (lane + 32 * c < D) to[lane + 32 * c] = x[c];
  }
};

// The warp's query, its list and what belongs to it.
struct Query {
  int batch_head, i, count;
  size_t first;  // place of its list among the entries of all batch_heads
  const int* keys;

  __device__ explicit Query(const AttentionCall& c) {
    const size_t row = size_t(blockIdx.x) * warps + threadIdx.x / 32;
    batch_head = int(row / size_t(c.T)), i = int(row % size_t(c.T));
    if (!exists(c)) return;
    count = c.k, first = row * size_t(c.k), keys = c.keys + first;
  }
  __device__ bool exists(const AttentionCall& c) const { return batch_head < c.B * c.H; }
};

__global__ void list_values(AttentionCall c) {
  const Query query(c);
  if (!query.exists(c)) return;
  const float* p = c.p + query.first;
  Row sum(nullptr, 0);
#pragma unroll 4
  for (int e = 0; e < query.count; ++e)
    sum.add(p[e] * c.factor(query.batch_head, query.i, e),
            Row(c.v + c.at(query.batch_head, query.keys[e]), c.D));
  sum.write(c.o + c.at(query.batch_head, query.i), c.D);
}

}  // namespace

void attention_lists(const AttentionCall& c, void* stream) {
  const size_t rows = size_t(c.B) * size_t(c.H) * size_t(c.T);
  launch({"list_values", (rows + warps - 1) / warps, 32 * warps}, stream, list_values, c);
}

}  // namespace focus::gpu
