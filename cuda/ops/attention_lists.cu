// Attention over short lists of keys in long sequences: a warp for each query, whose lanes share
// out the channels and take one key after the other. The choice of keys is made: by position, or by
// a kernel of cuda/attention.
#include "cuda/device/launch.h"
#include "cuda/ops/attention_steps.h"
#include "cuda/ops/warp.cuh"

namespace focus::gpu {

namespace {

constexpr int warps = 4;
constexpr int most = most_list_width / 32;  // channels of a lane

// The channels lane, lane + 32, … of a row; 0 beyond D.
struct Row {
  float x[most];
  __device__ Row(const float* from, int D) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int c = 0; c < most; ++c) x[c] = lane + 32 * c < D ? from[lane + 32 * c] : 0.f;
  }
  __device__ float dot(const Row& other) const {
    float sum = 0;
#pragma unroll
    for (int c = 0; c < most; ++c) sum += x[c] * other.x[c];
    return warp_sum(sum);
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
    count = c.begin[i + 1] - c.begin[i];
    first = size_t(batch_head) * size_t(c.nnz) + size_t(c.begin[i]);
    keys = c.keys_of(batch_head) + c.begin[i];
  }
  __device__ bool exists(const AttentionCall& c) const { return batch_head < c.B * c.H; }
};

__global__ void list_scores(AttentionCall c) {
  const Query query(c);
  if (!query.exists(c)) return;
  const int lane = threadIdx.x % 32;
  float* p = c.p + query.first;
  const Row q(c.q + c.at(query.batch_head, query.i), c.D);
  float top = -INFINITY;
#pragma unroll 4
  for (int e = 0; e < query.count; ++e) {
    const float s = q.dot(Row(c.k_rows + c.at(query.batch_head, query.keys[e]), c.D));
    top = s > top || s != s ? s : top;
    if (lane == e % 32) p[e] = s;
  }
  float sum = 0;
  for (int e = lane; e < query.count; e += 32) {
    p[e] = expf(c.scale * (p[e] - top));
    sum += p[e];
  }
  sum = warp_sum(sum);
  for (int e = lane; e < query.count; e += 32) p[e] /= sum;
}

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

// ds of each entry, and dq.
__global__ void list_backward(AttentionCall c, AttentionGradients g) {
  const Query query(c);
  if (!query.exists(c)) return;
  const int lane = threadIdx.x % 32;
  const float* p = c.p + query.first;
  float* ds = g.ds + query.first;
  const Row d_o(g.d_o + c.at(query.batch_head, query.i), c.D);
  float mean = 0;
#pragma unroll 4
  for (int e = 0; e < query.count; ++e) {
    const float dp = c.factor(query.batch_head, query.i, e) *
                     d_o.dot(Row(c.v + c.at(query.batch_head, query.keys[e]), c.D));
    mean += p[e] * dp;
    if (lane == e % 32) ds[e] = dp;
  }
  __syncwarp();
  Row dq(nullptr, 0);
#pragma unroll 4
  for (int e = 0; e < query.count; ++e)
    dq.add(c.scale * p[e] * (ds[e] - mean),
           Row(c.k_rows + c.at(query.batch_head, query.keys[e]), c.D));
  dq.write(g.dq + c.at(query.batch_head, query.i), c.D);
  __syncwarp();  // all lanes have read dP
  for (int e = lane; e < query.count; e += 32) ds[e] = c.scale * p[e] * (ds[e] - mean);
}

size_t blocks_for(const AttentionCall& c) {
  return (size_t(c.B) * size_t(c.H) * size_t(c.T) + warps - 1) / warps;
}

}  // namespace

void attention_lists(const AttentionCall& c, bool scores, void* stream) {
  if (scores) launch({"list_scores", blocks_for(c), 32 * warps}, stream, list_scores, c);
  launch({"list_values", blocks_for(c), 32 * warps}, stream, list_values, c);
}

void attention_lists_backward(const AttentionCall& c, const AttentionGradients& g, void* stream) {
  launch({"list_backward", blocks_for(c), 32 * warps}, stream, list_backward, c, g);
}

}  // namespace focus::gpu
