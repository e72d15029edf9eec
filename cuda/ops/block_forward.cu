// The forward half of a transformer block in two kernels, beside attention itself:
//
//   q, k, v = W norm(x)
//   middle = x + dropout(W_o attended);  y = middle + dropout(W_2 activation(dropout(W_1
//   norm(middle))))
//
// A tile of 64 rows stays in registers and shared memory from one operation to the next, the next
// weight arrives while a product runs, and dropout's bits are drawn while the first weights are on
// their way. Operation by operation (linear.cu and others) the same takes eleven kernels, each of
// which reads and writes all rows.
#include "cuda/device/launch.h"
#include "cuda/ops/activation.cuh"
#include "cuda/ops/block.cuh"
#include "cuda/ops/row_tile.cuh"

namespace focus::gpu {

namespace {

using namespace rows;

// Normalises the thread's part of a row; all 16 lanes of a row call it together.
__device__ __forceinline__ float2 normalise(float (&v)[C], float epsilon) {
  const float mean = row_sum(v[0] + v[1] + v[2] + v[3]) / float(side);
  float squares = 0;
#pragma unroll
  for (int j = 0; j < C; ++j) squares += (v[j] - mean) * (v[j] - mean);
  const float rstd = 1.f / sqrtf(row_sum(squares) / float(side) + epsilon);
#pragma unroll
  for (int j = 0; j < C; ++j) v[j] = (v[j] - mean) * rstd;
  return make_float2(mean, rstd);
}

// The three products are one with 3 · 64 columns: a thread owns 4 × 12 numbers.
__global__ void __launch_bounds__(threads, 2) normed_projections_kernel(NormedProjections a) {
  SharedMemory shared;
  float* n = shared.array<float>(tile_floats);
  float* weights = shared.array<float>(3 * tile_floats);
  const Tile t(a.M);
  const size_t parameters = size_t(t.run) * a.stride;
  copy_tile(n, a.x + t.row * side, t.M - t.first);
  __pipeline_commit();
#pragma unroll
  for (int layer = 0; layer < 3; ++layer)
    copy_weight(weights + layer * tile_floats, a.layers[layer].weight + parameters);
  __pipeline_commit();
  __pipeline_wait_prior(1);
  __syncthreads();  // x is there for all
#pragma unroll
  for (int i = 0; i < R; ++i) {
    float v[C];
#pragma unroll
    for (int j = 0; j < C; ++j) v[j] = n[t.y(i) * pitch + t.at.x + TX * j];
    const float2 stats = normalise(v, a.epsilon);
#pragma unroll
    for (int j = 0; j < C; ++j) n[t.y(i) * pitch + t.at.x + TX * j] = v[j];
    if (t.at.x == 0 && t.has(i)) a.stats[t.row + size_t(t.y(i))] = stats;
  }
  __pipeline_wait_prior(0);
  __syncthreads();  // the weights are there for all, and the normalised rows
  float acc[R][3 * C];
  multiply_by_transposed(acc, t, n, weights);
#pragma unroll
  for (int layer = 0; layer < 3; ++layer)
#pragma unroll
    for (int j = 0; j < C; ++j) {
      const size_t column = size_t(t.at.x + TX * j);
      const float bias = a.layers[layer].bias[parameters + column];
#pragma unroll
      for (int i = 0; i < R; ++i)
        if (t.has(i)) a.y[layer][t.offset(i) + column] = acc[i][layer * C + j] + bias;
    }
}

template <Activation activation>
__global__ void __launch_bounds__(threads, 2) second_half_kernel(SecondHalf a) {
  SharedMemory shared;
  float* rows = shared.array<float>(tile_floats);
  float* weights[2] = {shared.array<float>(tile_floats), shared.array<float>(tile_floats)};
  unsigned* masks = shared.array<unsigned>(3 * mask_words);
  const Tile t(a.M);
  const size_t parameters = size_t(t.run) * a.stride;
  copy_tile(rows, a.attended + t.row * side, t.M - t.first);
  copy_weight(weights[0], a.layers[0].weight + parameters);
  __pipeline_commit();
  copy_weight(weights[1], a.layers[1].weight + parameters);
  __pipeline_commit();
  const bool drops = a.draws[0].last_dropped >= 0;
  Fragment acc, middle;
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j)
      middle[i][j] = t.has(i) ? a.x[t.offset(i) + size_t(t.at.x + TX * j)] : 0.f;
  if (drops)
#pragma unroll
    for (int m = 0; m < 3; ++m) draw_mask(masks + m * mask_words, t, a.draws[m], a.kept[m]);

  // acc := a layer's output as dropout leaves it.
  const auto finish = [&](int layer) {
    float bias[C];
#pragma unroll
    for (int j = 0; j < C; ++j)
      bias[j] = a.layers[layer].bias[parameters + size_t(t.at.x + TX * j)];
#pragma unroll
    for (int i = 0; i < R; ++i) {
      unsigned kept[2] = {~0u, ~0u};
      if (drops)
#pragma unroll
        for (int w = 0; w < 2; ++w) kept[w] = masks[layer * mask_words + 2 * t.y(i) + w] >> t.at.x;
#pragma unroll
      for (int j = 0; j < C; ++j)
        acc[i][j] = (acc[i][j] + bias[j]) * (kept[j / 2] >> (TX * (j % 2)) & 1 ? a.scale : 0.f);
    }
  };
  const auto write = [&](float* to, const Fragment& from) {
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
      for (int j = 0; j < C; ++j)
        if (t.has(i) && to) to[t.offset(i) + size_t(t.at.x + TX * j)] = from[i][j];
  };

  __pipeline_wait_prior(1);
  __syncthreads();  // the attended rows, W_o and dropout's bits are there for all
  multiply_by_transposed(acc, t, rows, weights[0]);
  __syncthreads();  // nobody reads them any more
  copy_weight(weights[0], a.layers[2].weight + parameters);
  __pipeline_commit();
  finish(0);
#pragma unroll
  for (int i = 0; i < R; ++i) {
    float v[C];
#pragma unroll
    for (int j = 0; j < C; ++j) v[j] = middle[i][j] += acc[i][j];
    const float2 stats = normalise(v, a.epsilon);
    if (t.at.x == 0 && t.has(i) && a.stats) a.stats[t.row + size_t(t.y(i))] = stats;
#pragma unroll
    for (int j = 0; j < C; ++j) rows[t.y(i) * pitch + t.at.x + TX * j] = v[j];
  }
  write(a.middle, middle);

  __pipeline_wait_prior(1);
  __syncthreads();  // the normalised rows and W_1 are there for all
  multiply_by_transposed(acc, t, rows, weights[1]);
  __syncthreads();  // nobody reads the rows any more
  finish(1);
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j)
      rows[t.y(i) * pitch + t.at.x + TX * j] = activation_value(activation, acc[i][j]);
  write(a.hidden, acc);

  __pipeline_wait_prior(0);
  __syncthreads();  // the activated rows and W_2 are there for all
  multiply_by_transposed(acc, t, rows, weights[0]);
  finish(2);
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) acc[i][j] = middle[i][j] + acc[i][j];
  write(a.y, acc);
}

size_t blocks_for(int M, int runs) {
  return size_t((M + side - 1) / side) * size_t(runs);
}

}  // namespace

void normed_projections_forward(const NormedProjections& a, int runs, void* stream) {
  launch({"normed_projections", blocks_for(a.M, runs), threads,
          shared_bytes_for(tile_floats, 3 * tile_floats)},
         stream, normed_projections_kernel, a);
}

void second_half_forward(const SecondHalf& a, int runs, void* stream) {
  for_activation(a.activation, [&](auto activation) {
    launch({"second_half", blocks_for(a.M, runs), threads,
            shared_bytes_for(tile_floats, tile_floats, tile_floats, 3 * mask_words)},
           stream, second_half_kernel<decltype(activation)::value>, a);
  });
}

}  // namespace focus::gpu
