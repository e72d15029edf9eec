// The queries' half of attention: a warp for each query. Any length, width and pattern; meant for
// short sequences, for which a batch_head's keys and values fit in shared memory.
#include <algorithm>
#include <cmath>

#include "cuda/device/launch.h"
#include "cuda/ops/attention_steps.h"
#include "cuda/ops/warp.cuh"

namespace focus::gpu {

namespace {

// How a grid covers the rows: `splits` blocks a batch_head, `warps` rows of each at a time.
struct Cover {
  int splits, warps;
  bool staged;  // K and V go through shared memory

  explicit Cover(const AttentionCall& c) {
    const size_t batch_head = 2 * size_t(c.T) * size_t(c.D + 1) * sizeof(float);
    staged = batch_head <= std::min<size_t>(96 * 1024, device().shared_memory - 16 * 1024);
    warps = size_t(c.T) * 8 * sizeof(float) <= 64 * 1024 ? 8 : 1;
    splits = c.T <= 64 ? 1 : (c.T + 31) / 32;
  }
  size_t shared(const AttentionCall& c) const {
    const int staged_floats = staged ? c.T * (c.D + 1) : 0;
    return shared_bytes_for(staged_floats, staged_floats, warps * c.T);
  }
  size_t blocks(const AttentionCall& c) const { return size_t(c.B) * size_t(c.H) * size_t(splits); }
};

// The block's batch_head and rows, and its K and V: in shared memory, or where they are.
struct Block {
  int batch_head, first, end, row_step;
  const float *k, *v;
  float* row;  // this warp's T numbers

  __device__ Block(const AttentionCall& c, const Cover& cover) {
    SharedMemory shared;
    const int rows = (c.T + cover.splits - 1) / cover.splits;
    batch_head = int(blockIdx.x) / cover.splits;
    first = int(blockIdx.x) % cover.splits * rows;
    end = min(first + rows, c.T);
    k = c.k_rows + c.at(batch_head, 0), v = c.v + c.at(batch_head, 0), row_step = c.H * c.D;
    float* k_stage = shared.array<float>(cover.staged ? c.T * (c.D + 1) : 0);
    float* v_stage = shared.array<float>(cover.staged ? c.T * (c.D + 1) : 0);
    row = shared.array<float>(cover.warps * c.T) + int(threadIdx.x) / 32 * c.T;
    if (!cover.staged) return;
    for (int e = int(threadIdx.x); e < c.T * c.D; e += int(blockDim.x)) {
      const int j = e / c.D, d = e % c.D;
      k_stage[j * (c.D + 1) + d] = k[j * row_step + d];
      v_stage[j * (c.D + 1) + d] = v[j * row_step + d];
    }
    __syncthreads();
    k = k_stage, v = v_stage, row_step = c.D + 1;
  }
};

__device__ float dot(const float* a, const float* b, int D) {
  float sum = 0;
  for (int d = 0; d < D; ++d) sum += a[d] * b[d];
  return sum;
}

// Is (x, j) before (y, l) in the order of the choice: the larger score, then the lower index?
__device__ bool before(float x, int j, float y, int l) {
  return x > y || (x == y && j < l);
}

// Finds the k best of row[0 … T-1] (the smallest if `smallest`), writes them to `keys`, ascending,
// and their scores to p. A row with a NaN gets keys 0 … k-1 and NaN scores.
__device__ void choose_by_score(const float* row, int T, int k, bool smallest, int* keys,
                                float* p) {
  const int lane = threadIdx.x % 32;
  const float sign = smallest ? -1.f : 1.f;
  bool nan = false;
  for (int j = lane; j < T; j += 32) nan |= row[j] != row[j];
  if (__any_sync(all_lanes, nan)) {
    for (int e = lane; e < k; e += 32) keys[e] = e, p[e] = NAN;
    return;
  }
  float last = INFINITY;  // the last one found, and its key
  int last_key = -1;
  for (int found = 0; found < k; ++found) {
    float best = 0;
    int best_key = T;  // none
    for (int j = lane; j < T; j += 32) {
      const float s = sign * row[j];
      if (before(last, last_key, s, j) && (best_key == T || before(s, j, best, best_key)))
        best = s, best_key = j;
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      const float s = __shfl_xor_sync(all_lanes, best, lanes);
      const int j = __shfl_xor_sync(all_lanes, best_key, lanes);
      if (j < T && (best_key == T || before(s, j, best, best_key))) best = s, best_key = j;
    }
    last = best, last_key = best_key;
  }
  int written = 0;
  for (int j0 = 0; j0 < T; j0 += 32) {
    const int j = j0 + lane;
    const bool kept = j < T && !before(last, last_key, sign * row[min(j, T - 1)], j);
    const unsigned mask = __ballot_sync(all_lanes, kept);
    const int place = written + __popc(mask & ((1u << lane) - 1));
    if (kept) keys[place] = j, p[place] = row[j];
    written += __popc(mask);
  }
}

// k random keys of a row, ascending, as sparse::choose_at_random draws them. One lane does it.
__device__ void choose_at_random(const AttentionCall& c, const DropoutDraw& draw, bool training,
                                 int batch_head, int i, int* keys) {
  const uint64_t row = uint64_t(batch_head % c.batch_heads) * uint64_t(c.T) + uint64_t(i);
  // Evaluation has neither step nor seed of its own: it always draws the same keys.
  const uint64_t seed =
      (training ? draw.seeds[batch_head / c.batch_heads] : uint64_t{0}) + row * 0x9E3779B97F4A7C15u;
  const uint32_t step = training ? *draw.step : ~0u;
  const uint32_t n = uint32_t(c.T);
  uint32_t used = 4, block = 0;
  Words random{};
  const auto next = [&] {
    if (used == 4) {
      random = philox({{block++, step, draw.site, uint32_t(Stream::attention)}}, uint32_t(seed),
                      uint32_t(seed >> 32));
      used = 0;
    }
    return random.w[used++];
  };
  for (int e = 0; e < c.k; ++e) {
    uint64_t product = uint64_t{next()} * n;  // Rng::below
    if (uint32_t(product) < n)
      for (const uint32_t uneven = (0u - n) % n; uint32_t(product) < uneven;)
        product = uint64_t{next()} * n;
    const int key = int(product >> 32);
    int place = e;  // insertion keeps the list ascending
    for (; place > 0 && keys[place - 1] > key; --place) keys[place] = keys[place - 1];
    keys[place] = key;
  }
}

__global__ void attention_rows_kernel(AttentionCall c, Cover cover, DropoutDraw draw,
                                      bool training) {
  const Block block(c, cover);
  const int lane = threadIdx.x % 32, batch_head = block.batch_head;
  const bool chosen = c.pattern == Pattern::topk || c.pattern == Pattern::bottomk;
  for (int i = block.first + int(threadIdx.x) / 32; i < block.end; i += cover.warps) {
    const float* q = c.q + c.at(batch_head, i);
    const int first = c.begin[i], count = c.begin[i + 1] - first;
    float* p = c.p + size_t(batch_head) * size_t(c.nnz) + size_t(first);
    const int* keys = c.keys ? c.keys_of(batch_head) + first : nullptr;
    if (chosen) {
      const int seen = c.seen(i);
      for (int j = lane; j < seen; j += 32)
        block.row[j] = dot(q, block.k + j * block.row_step, c.D);
      __syncwarp();
      choose_by_score(block.row, seen, count, c.pattern == Pattern::bottomk,
                      c.keys + size_t(batch_head) * size_t(c.nnz) + size_t(first), p);
    } else {
      if (c.pattern == Pattern::random && lane == 0)
        choose_at_random(c, draw, training, batch_head, i,
                         c.keys + size_t(batch_head) * size_t(c.nnz) + size_t(first));
      __syncwarp();
      for (int e = lane; e < count; e += 32) {
        const int j = keys ? keys[e] : e;
        // A key that was drawn twice counts once.
        const bool again = c.pattern == Pattern::random && e > 0 && keys[e - 1] == j;
        p[e] = again ? -INFINITY : dot(q, block.k + j * block.row_step, c.D);
      }
    }
    __syncwarp();
    float top = -INFINITY;
    for (int e = lane; e < count; e += 32) top = fmaxf(top, p[e]);
    top = warp_max(top);
    float sum = 0;
    for (int e = lane; e < count; e += 32) {
      p[e] = expf(c.scale * (p[e] - top));
      sum += p[e];
    }
    sum = warp_sum(sum);
    for (int e = lane; e < count; e += 32) {
      p[e] /= sum;
      block.row[e] = p[e] * c.factor(batch_head, i, e);
    }
    __syncwarp();
    for (int d = lane; d < c.D; d += 32) {
      float out = 0;
      for (int e = 0; e < count; ++e)
        out += block.row[e] * block.v[(keys ? keys[e] : e) * block.row_step + d];
      c.o[c.at(batch_head, i) + size_t(d)] = out;
    }
    __syncwarp();
  }
}

// ds of each entry, and dq.
__global__ void attention_rows_backward_kernel(AttentionCall c, Cover cover, AttentionGradients g) {
  const Block block(c, cover);
  const int lane = threadIdx.x % 32, batch_head = block.batch_head;
  for (int i = block.first + int(threadIdx.x) / 32; i < block.end; i += cover.warps) {
    const float* d_o = g.d_o + c.at(batch_head, i);
    const int first = c.begin[i], count = c.begin[i + 1] - first;
    const float* p = c.p + size_t(batch_head) * size_t(c.nnz) + size_t(first);
    float* ds = g.ds + size_t(batch_head) * size_t(c.nnz) + size_t(first);
    const int* keys = c.keys ? c.keys_of(batch_head) + first : nullptr;
    float mean = 0;
    for (int e = lane; e < count; e += 32) {
      const int j = keys ? keys[e] : e;
      block.row[e] = c.factor(batch_head, i, e) * dot(d_o, block.v + j * block.row_step, c.D);
      mean += p[e] * block.row[e];
    }
    mean = warp_sum(mean);
    for (int e = lane; e < count; e += 32) {
      block.row[e] = c.scale * p[e] * (block.row[e] - mean);
      ds[e] = block.row[e];
    }
    __syncwarp();
    for (int d = lane; d < c.D; d += 32) {
      float sum = 0;
      for (int e = 0; e < count; ++e)
        sum += block.row[e] * block.k[(keys ? keys[e] : e) * block.row_step + d];
      g.dq[c.at(batch_head, i) + size_t(d)] = sum;
    }
    __syncwarp();
  }
}

}  // namespace

void attention_rows(const AttentionCall& c, const DropoutDraw& draw, bool training, void* stream) {
  const Cover cover(c);
  launch({"attention_rows", cover.blocks(c), 32 * cover.warps, cover.shared(c)}, stream,
         attention_rows_kernel, c, cover, draw, training);
}

void attention_rows_backward(const AttentionCall& c, const AttentionGradients& g, void* stream) {
  const Cover cover(c);
  launch({"attention_rows_backward", cover.blocks(c), 32 * cover.warps, cover.shared(c)}, stream,
         attention_rows_backward_kernel, c, cover, g);
}

}  // namespace focus::gpu
