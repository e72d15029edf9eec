// Token embedding. Forward: a thread for each number. Backward: many tokens share a row of the
// table, so a block adds up `chunk` tokens in order, a thread for each channel, into rows in shared
// memory; a second kernel adds the chunks in order.
#include <cmath>

#include "cuda/device/launch.h"
#include "cuda/ops/ops.h"
#include "cuda/simt/simt.h"

namespace focus::gpu {

namespace {

constexpr int chunk = 128;

__global__ void embedding_forward(const int* tokens, const float* table, const float* positions,
                                  float* y, size_t stride, size_t per_run, int T, int C,
                                  float scale, size_t n) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const size_t token = i / size_t(C), c = i % size_t(C), run = token / per_run;
  const float* row = table + run * stride + size_t(tokens[token]) * size_t(C);
  y[i] = scale * row[c] + positions[token % size_t(T) * size_t(C) + c];
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
    for (size_t t = run * per_run + first; t < run * per_run + end; ++t)
      if (tokens[t] >= low && tokens[t] < high)
        sums[(tokens[t] - low) * C + c] += dy[t * size_t(C) + size_t(c)];
    for (int v = low; v < high; ++v)
      partial[(at * size_t(V) + size_t(v)) * size_t(C) + size_t(c)] = sums[(v - low) * C + c];
  }
}

__global__ void embedding_sum(const float* partial, float* d_table, size_t stride, int chunks,
                              size_t size, float scale, int runs) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x, run = i / size, e = i % size;
  if (run >= size_t(runs)) return;
  float sum = 0;
  for (int k = 0; k < chunks; ++k) sum += partial[(run * size_t(chunks) + size_t(k)) * size + e];
  d_table[run * stride + e] += scale * sum;
}

}  // namespace

Tensor<float> CudaOps::embedding(Tape<float>& tape, const int* tokens, int B,
                                 const Tensor<float>& table, const Tensor<float>& positions) {
  const int V = table.shape[0], C = table.channels(), T = positions.shape[0];
  const Tensor<float> y = tape.make({B, T, C});
  const float scale = std::sqrt(float(C));
  const size_t per_run = size_t(B / runs()) * size_t(T);
  launch({"embedding_forward", (y.size() + 255) / 256, 256}, stream(), embedding_forward, tokens,
         table.data, positions.data, y.data, stride(), per_run, T, C, scale, y.size());
  tape.record(y, [=, this, &tape] {
    const float* dy = tape.gradient(y);
    float* d_table = tape.gradient(table);
    if (!d_table) return;
    const int chunks = int((per_run + chunk - 1) / chunk);
    const int rows = std::clamp(8192 / C, 1, V), tiles = (V + rows - 1) / rows;
    const size_t size = size_t(V) * size_t(C);
    float* partial = tape.memory<float>(size_t(runs()) * size_t(chunks) * size);
    launch({"embedding_partial", size_t(runs()) * size_t(chunks) * size_t(tiles), 64,
            shared_bytes_for(rows * C)},
           stream(), embedding_partial, tokens, dy, partial, per_run, chunks, tiles, rows, V, C);
    launch({"embedding_sum", (size_t(runs()) * size + 127) / 128, 128}, stream(), embedding_sum,
           partial, d_table, stride(), chunks, size, scale, runs());
  });
  return y;
}

}  // namespace focus::gpu
