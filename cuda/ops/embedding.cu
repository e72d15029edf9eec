// Token embedding. Forward: a warp for each token. Backward, where many tokens share each of a few
// rows of the table: a block adds up `chunk` tokens in order, a thread for each channel, into rows
// in shared memory; a second kernel adds the chunks, a warp a share of them, and the shares in
// order. The chunks would take V·C numbers each, so the table of a whole vocabulary has a block for
// each row instead, whose warps look through a share of the tokens for theirs.
#include <cmath>

#include "cuda/device/launch.h"
#include "cuda/ops/ops.h"
#include "cuda/simt/simt.h"

namespace focus::gpu {

namespace {

constexpr int chunk = 32;  // tokens of a block, all read before one is added
constexpr int sum_warps = 8;
constexpr int most_in_chunks = 256;  // rows of the table

__global__ void embedding_forward_kernel(const int* tokens, const float* table,
                                         const float* positions, float* y, size_t stride,
                                         int per_run, int T, int C, float scale, int rows) {
  const int row = int(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), lane = threadIdx.x % 32;
  if (row >= rows) return;
  const float* from = table + size_t(row / per_run) * stride + size_t(tokens[row]) * size_t(C);
  const float* position = positions + size_t(row % T) * size_t(C);
  float* to = y + size_t(row) * size_t(C);
  for (int c = lane; c < C; c += 32) to[c] = scale * from[c] + position[c];
}

// Block: run, chunk of tokens, tile of `rows` rows of the table. partial: (R,chunks,V,C).
__global__ void embedding_partial(const int* tokens, const float* dy, float* partial,
                                  size_t per_run, int chunks, int tiles, int rows, int V, int C) {
  SharedMemory shared;
  float* sums = shared.array<float>(rows * C);
  const size_t tile = blockIdx.x % unsigned(tiles), at = blockIdx.x / unsigned(tiles);
  const size_t run = at / size_t(chunks), first = at % size_t(chunks) * chunk;
  const int low = int(tile) * rows, high = min(low + rows, V);
  const size_t end = first + chunk < per_run ? first + chunk : per_run;
  for (int c = int(threadIdx.x); c < C; c += int(blockDim.x)) {  // nobody else touches column c
    for (int v = 0; v < high - low; ++v) sums[v * C + c] = 0;
    int token[chunk];
    float d[chunk];
#pragma unroll
    for (int e = 0; e < chunk; ++e) {
      const size_t t = run * per_run + (first + size_t(e) < end ? first + size_t(e) : first);
      token[e] = first + size_t(e) < end ? tokens[t] : -1;
      d[e] = dy[t * size_t(C) + size_t(c)];
    }
#pragma unroll
    for (int e = 0; e < chunk; ++e)
      if (token[e] >= low && token[e] < high) sums[(token[e] - low) * C + c] += d[e];
    for (int v = low; v < high; ++v)
      partial[(at * size_t(V) + size_t(v)) * size_t(C) + size_t(c)] = sums[(v - low) * C + c];
  }
}

__global__ void __launch_bounds__(32 * sum_warps)
    embedding_sum(const float* partial, float* d_table, size_t stride, int chunks, size_t size,
                  float scale, int groups) {
  SharedMemory shared;
  float* shares = shared.array<float>(32 * sum_warps);
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const size_t run = blockIdx.x / unsigned(groups);
  const size_t e = size_t(blockIdx.x) % size_t(groups) * 32 + size_t(lane);
  const int first = int(int64_t{chunks} * warp / sum_warps);
  const int last = int(int64_t{chunks} * (warp + 1) / sum_warps);
  float sum = 0;
  constexpr int ahead = 16;
  if (e < size)
    for (int k0 = first; k0 < last; k0 += ahead) {
      float next[ahead];
#pragma unroll
      for (int k = 0; k < ahead; ++k)
        next[k] = k0 + k < last ? partial[(run * size_t(chunks) + size_t(k0 + k)) * size + e] : 0.f;
#pragma unroll
      for (int k = 0; k < ahead; ++k) sum += next[k];
    }
  shares[warp * 32 + lane] = sum;
  __syncthreads();  // all shares are there
  if (warp != 0 || e >= size) return;
  for (int w = 1; w < sum_warps; ++w) sum += shares[w * 32 + lane];
  d_table[run * stride + e] += scale * sum;
}

constexpr int gather_warps = 8, gather_channels = 128;

__global__ void __launch_bounds__(32 * gather_warps)
    embedding_gather(const int* tokens, const float* dy, float* d_table, size_t stride, int per_run,
                     int V, int C, float scale) {
  SharedMemory shared;
  float* shares = shared.array<float>(gather_warps * gather_channels);
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const size_t run = blockIdx.x / unsigned(V);
  const int word = int(blockIdx.x % unsigned(V));
  tokens += run * size_t(per_run), dy += run * size_t(per_run) * size_t(C);
  const int first = int(int64_t{per_run} * warp / gather_warps);
  const int last = int(int64_t{per_run} * (warp + 1) / gather_warps);
  for (int c0 = 0; c0 < C; c0 += gather_channels) {
    float sum[gather_channels / 32] = {};
    for (int t0 = first; t0 < last; t0 += 32) {
      // Each lane looks at one token; then all add the rows found, in order.
      const bool found = t0 + lane < last && tokens[t0 + lane] == word;
      for (unsigned left = __ballot_sync(all_lanes, found); left; left &= left - 1) {
        const float* row = dy + size_t(t0 + __ffs(int(left)) - 1) * size_t(C);
#pragma unroll
        for (int x = 0; x < gather_channels / 32; ++x)
          if (const int c = c0 + lane + 32 * x; c < C) sum[x] += row[c];
      }
    }
#pragma unroll
    for (int x = 0; x < gather_channels / 32; ++x)
      shares[warp * gather_channels + lane + 32 * x] = sum[x];
    __syncthreads();  // all shares are there
    if (const int c = int(threadIdx.x); c < gather_channels && c0 + c < C) {
      float total = 0;
      for (int w = 0; w < gather_warps; ++w) total += shares[w * gather_channels + c];
      d_table[run * stride + size_t(word) * size_t(C) + size_t(c0 + c)] += scale * total;
    }
    __syncthreads();  // nobody reads the shares any more
  }
}

}  // namespace

namespace {
int chunks_of(const EmbeddingSize& s) {
  return (s.B * s.T + chunk - 1) / chunk;
}
}  // namespace

void embedding_forward(const Runs& runs, const EmbeddingSize& s, const int* tokens,
                       const float* table, const float* positions, float* y, void* stream) {
  const int per_run = s.B * s.T, rows = per_run * runs.count;
  launch({"embedding_forward", size_t(rows + 7) / 8, 256}, stream, embedding_forward_kernel, tokens,
         table, positions, y, runs.stride, per_run, s.T, s.C, std::sqrt(float(s.C)), rows);
}

size_t embedding_part_floats(const Runs& runs, const EmbeddingSize& s) {
  if (s.V > most_in_chunks) return 0;
  return size_t(runs.count) * size_t(chunks_of(s)) * size_t(s.V) * size_t(s.C);
}

void embedding_backward(const Runs& runs, const EmbeddingSize& s, const int* tokens,
                        const float* dy, float* d_table, float* parts, void* stream) {
  const size_t R = size_t(runs.count), size = size_t(s.V) * size_t(s.C);
  const float scale = std::sqrt(float(s.C));
  if (s.V > most_in_chunks)
    return launch({"embedding_gather", R * size_t(s.V), 32 * gather_warps,
                   shared_bytes_for(gather_warps * gather_channels)},
                  stream, embedding_gather, tokens, dy, d_table, runs.stride, s.B * s.T, s.V, s.C,
                  scale);
  const int chunks = chunks_of(s), groups = int((size + 31) / 32);
  const int rows = std::clamp(8192 / s.C, 1, s.V), tiles = (s.V + rows - 1) / rows;
  launch(
      {"embedding_partial", R * size_t(chunks) * size_t(tiles), 64, shared_bytes_for(rows * s.C)},
      stream, embedding_partial, tokens, dy, parts, size_t(s.B) * size_t(s.T), chunks, tiles, rows,
      s.V, s.C);
  launch({"embedding_sum", R * size_t(groups), 32 * sum_warps, shared_bytes_for(32 * sum_warps)},
         stream, embedding_sum, parts, d_table, runs.stride, chunks, size, scale, groups);
}

}  // namespace focus::gpu
