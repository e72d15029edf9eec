// The forward half of a transformer block in two kernels, beside attention itself:
//
//   q, k, v = W norm(x)
//   middle = x + dropout(W_o attended);  y = middle + dropout(W_2 activation(dropout(W_1
//   norm(middle))))
//
// and, between two blocks, the second with the next block's first behind it. A tile of 64 rows
// stays in registers and shared memory from one operation to the next, and later weights arrive
// while products run. Dropout's bits depend on nothing else, so a kernel of their own draws them
// earlier, beside others. Operation by operation (linear.cu and others) the same takes eleven
// kernels, each of which reads and writes all rows.
//
// A warp keeps to its own rows, so it waits for the others only where a weight has arrived or may
// be overwritten: one warp multiplies while another is at a norm.
//
// Measured at 15000 rows on an H100, where multiply-adds alone would take 12 µs: 33 µs from one
// attention to the next, 43 in two kernels (predicted: 30). Each tile reads 104 KB of weights: the
// second-level cache is the limit until they are there.
#include "cuda/device/launch.h"
#include "cuda/fast/blocks/block.cuh"
#include "cuda/fast/blocks/row_tile.cuh"
#include "cuda/ops/activation.cuh"
#include "cuda/ops/philox.cuh"

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

// tile := the warp's rows x, normalised. stats: may be nullptr.
__device__ __forceinline__ void store_normalised(float* tile, const RowTile& t, const Fragment& x,
                                                 float epsilon, float2* stats) {
#pragma unroll
  for (int i = 0; i < R; ++i) {
    float v[C];
#pragma unroll
    for (int j = 0; j < C; ++j) v[j] = x[i][j];
    const float2 s = normalise(v, epsilon);
    if (t.at.x == 0 && t.has(i) && stats) stats[t.row_of(i)] = s;
#pragma unroll
    for (int j = 0; j < C; ++j) tile[t.y(i) * pitch + t.at.x + TX * j] = v[j];
  }
  __syncwarp();  // the rows are there for the warp
}

// Starts copying the three layers of the projections.
__device__ __forceinline__ void copy_layers(float* weights, float* biases, const NormQkv& a,
                                            size_t parameters) {
#pragma unroll
  for (int layer = 0; layer < 3; ++layer) {
    copy_weight(weights + layer * tile_floats, a.layers[layer].weight + parameters);
    copy_bias(biases + layer * side, a.layers[layer].bias + parameters);
  }
}

// q, k, v := the layers of the warp's rows n. The three products are one with 3 · 64 columns: a
// thread owns 4 × 12 numbers.
__device__ __forceinline__ void project(const NormQkv& a, const RowTile& t, const float* n,
                                        const float* weights, const float* biases) {
  float acc[R][3 * C];
  multiply_by_transposed(acc, t, n, weights);
#pragma unroll
  for (int layer = 0; layer < 3; ++layer)
#pragma unroll
    for (int j = 0; j < C; ++j) {
      const float bias = (biases + t.at.x)[layer * side + TX * j];
#pragma unroll
      for (int i = 0; i < R; ++i)
        if (t.has(i))
          (a.y[layer] + t.at.x)[t.offset(i) + size_t(TX * j)] = acc[i][layer * C + j] + bias;
    }
}

__global__ void __launch_bounds__(threads, 2) norm_qkv_kernel(NormQkv a) {
  SharedMemory shared;
  float* n = shared.array<float>(tile_floats);
  float* weights = shared.array<float>(3 * tile_floats);
  float* biases = shared.array<float>(3 * side);
  const RowTile t(a.M);
  copy_layers(weights, biases, a, size_t(t.run) * a.stride);
  __pipeline_commit();
  wait_for_previous();
  Fragment x;
  load_columns(x, t, a.x);
  store_normalised(n, t, x, a.epsilon, a.stats);
  __pipeline_wait_prior(0);
  __syncthreads();  // the weights are there for all
  project(a, t, n, weights, biases);
}

template <Activation activation, bool projects>
__global__ void __launch_bounds__(threads, 2) output_and_mlp_kernel(OutputAndMlp a, NormQkv next) {
  SharedMemory shared;
  float* rows = shared.array<float>(tile_floats);
  float* weights[2] = {shared.array<float>(tile_floats), shared.array<float>(tile_floats)};
  float *biases = shared.array<float>(3 * side), *masks = shared.array<float>(3 * mask_floats);
  float* next_weights = projects ? shared.array<float>(3 * tile_floats) : nullptr;
  float* next_biases = projects ? shared.array<float>(3 * side) : nullptr;
  const RowTile t(a.M);
  const size_t parameters = size_t(t.run) * a.stride;
  copy_weight(weights[0], a.layers[0].weight + parameters);
#pragma unroll
  for (int layer = 0; layer < 3; ++layer)
    copy_bias(biases + layer * side, a.layers[layer].bias + parameters);
  const bool drops = a.kept[0];
  if (drops) copy_masks(masks, t, a.kept);
  wait_for_previous();
  copy_tile(rows, a.attended + t.row * side, t.M - t.first);
  __pipeline_commit();
  Fragment acc, middle;
  load_columns(middle, t, a.x);
  copy_weight(weights[1], a.layers[1].weight + parameters);
  if constexpr (projects) copy_layers(next_weights, next_biases, next, parameters);
  __pipeline_commit();

  // acc := a layer's output as dropout leaves it.
  const auto finish = [&](int layer) {
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const uint64_t kept =
          drops ? bits_of_columns(masks + layer * mask_floats, t, i) : ~uint64_t{0};
#pragma unroll
      for (int j = 0; j < C; ++j)
        acc[i][j] = (acc[i][j] + (biases + t.at.x)[layer * side + TX * j]) *
                    (kept >> (TX * j) & 1 ? a.scale : 0.f);
    }
  };

  __pipeline_wait_prior(1);
  __syncthreads();  // W_o is there for all, the attended rows and dropout's bits for the warp
  multiply_by_transposed(acc, t, rows, weights[0]);
  __pipeline_wait_prior(0);
  __syncthreads();  // nobody reads W_o any more, and W_1 is there for all
  copy_weight(weights[0], a.layers[2].weight + parameters);
  __pipeline_commit();
  finish(0);
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) middle[i][j] += acc[i][j];
  store_normalised(rows, t, middle, a.epsilon, a.stats);
  store_columns(a.middle, t, middle);

  multiply_by_transposed(acc, t, rows, weights[1]);
  finish(1);
  __syncwarp();  // the warp does not read the rows any more
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j)
      rows[t.y(i) * pitch + t.at.x + TX * j] = activation_value(activation, acc[i][j]);
  store_columns(a.hidden, t, acc);

  __pipeline_wait_prior(0);
  __syncthreads();  // W_2 is there for all
  multiply_by_transposed(acc, t, rows, weights[0]);
  finish(2);
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) acc[i][j] = middle[i][j] + acc[i][j];
  store_columns(a.y, t, acc);
  if constexpr (projects) {
    __syncwarp();  // as above
    store_normalised(rows, t, acc, next.epsilon, next.stats);
    project(next, t, rows, next_weights, next_biases);
  }
}

// The bits of the three uses of dropout, a thread for eight of one.
__global__ void draw_kept_kernel(OutputAndMlp a, size_t bytes) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x, byte = i % bytes;
  const size_t of_run = size_t(a.M) * 8;
#pragma unroll
  for (int m = 0; m < 3; ++m)
    if (i / bytes == size_t(m))
      a.kept[m][byte] =
          static_cast<unsigned char>(kept_bits(a.draws[m], int(byte / of_run), byte % of_run));
}

size_t blocks_for(int M, int runs) {
  return size_t((M + side - 1) / side) * size_t(runs);
}

}  // namespace

void draw_kept(const OutputAndMlp& a, int runs, void* stream) {
  const size_t bytes = size_t(runs) * size_t(a.M) * 8;
  launch({"draw_kept", (3 * bytes + 255) / 256, 256}, stream, draw_kept_kernel, a, bytes);
}

void norm_qkv_forward(const NormQkv& a, int runs, void* stream) {
  if (a.precision != Precision::fp32) return tensor_cores::norm_qkv_forward(a, runs, stream);
  launch(early({"norm_qkv", blocks_for(a.M, runs), threads,
                shared_bytes_for(tile_floats, 3 * tile_floats, 3 * side)}),
         stream, norm_qkv_kernel, a);
}

void output_and_mlp_forward(const OutputAndMlp& a, const NormQkv* next, int runs, void* stream) {
  if (a.precision != Precision::fp32)
    return tensor_cores::output_and_mlp_forward(a, next, runs, stream);
  const size_t shared =
      shared_bytes_for(tile_floats, tile_floats, tile_floats, 3 * side, 3 * mask_floats);
  const size_t more = shared_bytes_for(3 * tile_floats, 3 * side);
  for_activation(a.activation, [&](auto chosen) {
    constexpr Activation activation = decltype(chosen)::value;
    if (next)
      launch(early({"output_and_mlp_and_norm_qkv", blocks_for(a.M, runs), threads, shared + more}),
             stream, output_and_mlp_kernel<activation, true>, a, *next);
    else
      launch(early({"output_and_mlp", blocks_for(a.M, runs), threads, shared}), stream,
             output_and_mlp_kernel<activation, false>, a, NormQkv{});
  });
}

}  // namespace focus::gpu
