// The kernels of block_forward.cu on tensor cores: the same operations, with what row_mma.cuh says
// of who holds what. Warps meet only where weights arrive.
#include "cuda/device/launch.h"
#include "cuda/ops/row_mma.cuh"

namespace focus::gpu {

namespace {

using namespace row_mma;

// Normalises rows. stats: may be nullptr.
__device__ __forceinline__ void normalise(Rows& x, const Tile& t, float epsilon, float2* stats) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float sum = 0, squares = 0;
#pragma unroll
    for (int c = 0; c < own; ++c) sum += x.at[h][c];
    const float mean = row_sum(sum) / float(side);
#pragma unroll
    for (int c = 0; c < own; ++c) squares += (x.at[h][c] - mean) * (x.at[h][c] - mean);
    const float rstd = 1.f / sqrtf(row_sum(squares) / float(side) + epsilon);
#pragma unroll
    for (int c = 0; c < own; ++c) x.at[h][c] = (x.at[h][c] - mean) * rstd;
    if (t.t == 0 && t.has(h) && stats) stats[t.row_of(h)] = make_float2(mean, rstd);
  }
}

__device__ __forceinline__ void copy_layer(float* weight, float* bias, const FusedLayer& layer,
                                           size_t parameters) {
  copy_weight<Swizzle::by_row>(weight, layer.weight + parameters);
  copy_bias(bias, layer.bias + parameters);
}

// A Wᵀ + b
template <Precision P>
__device__ __forceinline__ Rows apply(const Tile& t, const Rows& a, const float* weight,
                                      const float* bias) {
  Rows result;
#pragma unroll
  for (int p = 0; p < 4; ++p) {
    const float4 b = load4(bias + 16 * p + 4 * t.t);
    set_vector(result, 0, p, b), set_vector(result, 1, p, b);
  }
  add_by_transposed<P>(result, t, a, weight);
  return result;
}

// q, k, v := the layers of the rows x, normalised.
template <Precision P>
__device__ __forceinline__ void project(const NormedProjections& a, const Tile& t, Rows& x,
                                        const float* weights, const float* biases) {
  normalise(x, t, a.epsilon, a.stats);
  x = operand<P>(x);
  __pipeline_wait_prior(0);
  __syncthreads();  // the weights are there for all
#pragma unroll 1
  for (int layer = 0; layer < 3; ++layer)
    store(a.y[layer], t, apply<P>(t, x, weights + layer * tile_floats, biases + layer * side));
}

template <Precision P>
__global__ void __launch_bounds__(threads, 2) normed_projections_mma_kernel(NormedProjections a) {
  SharedMemory shared;
  float* weights = shared.array<float>(3 * tile_floats);
  float* biases = shared.array<float>(3 * side);
  const Tile t(a.M);
#pragma unroll
  for (int layer = 0; layer < 3; ++layer)
    copy_layer(weights + layer * tile_floats, biases + layer * side, a.layers[layer],
               size_t(t.run) * a.stride);
  __pipeline_commit();
  wait_for_previous();
  Rows x;
  load(x, t, a.x);
  project<P>(a, t, x, weights, biases);
}

// projects: whether the next block's projections follow.
template <Precision P>
__global__ void __launch_bounds__(threads, 2)
    second_half_mma_kernel(SecondHalf a, NormedProjections next, bool projects) {
  SharedMemory shared;
  float *weights = shared.array<float>(3 * tile_floats), *biases = shared.array<float>(3 * side);
  float* next_weights = projects ? shared.array<float>(3 * tile_floats) : nullptr;
  float* next_biases = projects ? shared.array<float>(3 * side) : nullptr;
  const Tile t(a.M);
  const size_t parameters = size_t(t.run) * a.stride;
#pragma unroll
  for (int layer = 0; layer < 3; ++layer) {
    copy_layer(weights + layer * tile_floats, biases + layer * side, a.layers[layer], parameters);
    if (layer != 1) __pipeline_commit();
  }
  if (projects)
#pragma unroll
    for (int layer = 0; layer < 3; ++layer)
      copy_layer(next_weights + layer * tile_floats, next_biases + layer * side, next.layers[layer],
                 parameters);
  __pipeline_commit();
  // Not the previous kernel's, but those before it wrote these.
  Rows middle, in;
  Bits kept[3];
#pragma unroll
  for (int layer = 0; layer < 3; ++layer) kept[layer].load(t, a.kept[layer]);
  load(middle, t, a.x);
  wait_for_previous();
  load(in, t, a.attended);

  // A layer's output as dropout leaves it.
  const auto finished = [&](int layer) {
    Rows result = apply<P>(t, operand<P>(in), weights + layer * tile_floats, biases + layer * side);
    if (a.kept[0]) kept[layer].apply(result, a.scale);
    return result;
  };

  __pipeline_wait_prior(2);
  __syncthreads();  // W_o is there for all
  in = finished(0);
  each([&](int h, int c) { in.at[h][c] = middle.at[h][c] += in.at[h][c]; });
  store(a.middle, t, middle);
  normalise(in, t, a.epsilon, a.stats);
  __pipeline_wait_prior(1);
  __syncthreads();  // the MLP's weights are there for all
  in = finished(1);
  store(a.hidden, t, in);
  with_activation(a.activation, [&](Activation chosen) {
    each([&](int h, int c) { in.at[h][c] = activation_value(chosen, in.at[h][c]); });
  });
  in = finished(2);
  each([&](int h, int c) { in.at[h][c] += middle.at[h][c]; });
  store(a.y, t, in);
  if (projects) project<P>(next, t, in, next_weights, next_biases);
}

constexpr size_t layers_bytes = shared_bytes_for(3 * tile_floats, 3 * side);

}  // namespace

void tensor_cores::normed_projections_forward(const NormedProjections& a, int runs, void* stream) {
  for_precision(a.precision, [&](auto chosen) {
    launch(early({"normed_projections_mma", blocks_for(a.M, runs), threads, layers_bytes}), stream,
           normed_projections_mma_kernel<decltype(chosen)::value>, a);
  });
}

void tensor_cores::second_half_forward(const SecondHalf& a, const NormedProjections* next, int runs,
                                       void* stream) {
  for_precision(a.precision, [&](auto chosen) {
    launch(early({next ? "second_half_and_projections_mma" : "second_half_mma",
                  blocks_for(a.M, runs), threads, next ? 2 * layers_bytes : layers_bytes}),
           stream, second_half_mma_kernel<decltype(chosen)::value>, a,
           next ? *next : NormedProjections{}, next != nullptr);
  });
}

}  // namespace focus::gpu
