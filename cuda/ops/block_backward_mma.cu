// The kernels of block_backward.cu on tensor cores: the same operations, with what row_mma.cuh says
// of who holds what, and the same parts.
//
// A layer takes one barrier. Before it a warp stores its rows of G and of the layer's input for all
// and multiplies G, in registers, by the layer's weight; after it the warps make the layer's
// gradients, while the weight after the next one and the next rows arrive. What they read is
// written again two layers later.
#include "cuda/device/launch.h"
#include "cuda/ops/row_mma.cuh"

namespace focus::gpu {

namespace {

using namespace row_mma;

constexpr int part_floats = side * side + side;  // a weight's gradient and its bias's

__device__ __forceinline__ void load_stats(float2 (&to)[2], const Tile& t, const float2* stats) {
#pragma unroll
  for (int h = 0; h < 2; ++h) to[h] = t.has(h) ? stats[t.row_of(h)] : make_float2(0, 0);
}
// x as the forward normalised it: (x − mean) / σ; 0 in rows that do not exist.
__device__ __forceinline__ void normalise(Rows& x, const float2 (&stats)[2]) {
  each([&](int h, int c) { x.at[h][c] = (x.at[h][c] - stats[h].x) * stats[h].y; });
}

// Layer norm's backward: d := rstd (d − mean(d) − n · mean(d n)), n the normalised rows.
__device__ __forceinline__ void norm_backward(Rows& d, const Rows& n, const float2 (&stats)[2]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float sum = 0, dot = 0;
#pragma unroll
    for (int c = 0; c < own; ++c) sum += d.at[h][c], dot += d.at[h][c] * n.at[h][c];
    const float mean = row_sum(sum) / float(side), mean_dot = row_sum(dot) / float(side);
#pragma unroll
    for (int c = 0; c < own; ++c)
      d.at[h][c] = stats[h].y * (d.at[h][c] - mean - n.at[h][c] * mean_dot);
  }
}

// to := v, or += v
__device__ __forceinline__ void write(float* to, const Tile& t, const Rows& v, bool add) {
  Rows sum = v;
  if (add) {
    Rows old;
    load(old, t, to);
    each([&](int h, int c) { sum.at[h][c] += old.at[h][c]; });
  }
  store(to, t, sum);
}

// Shared memory and the order in which layers pass through it.
template <Precision P>
struct Pipeline {
  float *g, *inputs, *weights, *sums;  // two of each: a layer uses those that the one before it
                                       // does not
  int layer = 0;

  __device__ explicit Pipeline(SharedMemory& shared)
      : g(shared.array<float>(2 * tile_floats)),
        inputs(shared.array<float>(2 * tile_floats)),
        weights(shared.array<float>(2 * tile_floats)),
        sums(shared.array<float>(2 * warps * side)) {}
  static constexpr size_t bytes =
      shared_bytes_for(2 * tile_floats, 2 * tile_floats, 2 * tile_floats, 2 * warps * side);

  // Starts copying the weight of a layer, counted from the next one.
  __device__ __forceinline__ void fetch(int ahead, const float* weight) {
    copy_weight<Swizzle::by_column>(weights + (layer + ahead) % 2 * tile_floats, weight);
    __pipeline_commit();
  }
  // The first weight is there for all. Two are on their way.
  __device__ __forceinline__ void begin() {
    __pipeline_wait_prior(1);
    __syncthreads();
  }
  // An input of this layer, and maybe of later ones.
  __device__ __forceinline__ const float* store_input(const Tile& t, const Rows& x) {
    float* to = inputs + layer % 2 * tile_floats;
    store_tile(to, t, operand<P>(x));
    return to;
  }
  // dx += G W, and part := the layer's gradients. load(): starts loading what the next layer needs.
  // weight: of the layer after the next, or nullptr.
  template <class Load>
  __device__ __forceinline__ void backward(Rows& dx, float* part, const Tile& t,
                                           const Rows& gradient, const float* input,
                                           const float* weight, const Load& load) {
    const int now = layer % 2;
    float *own_g = g + now * tile_floats, *own_sums = sums + now * warps * side;
    column_sums(own_sums, t, gradient);
    const Rows rounded = operand<P>(gradient);
    store_tile(own_g, t, rounded);
    add_by<P>(dx, t, rounded, weights + now * tile_floats);
    load();
    __pipeline_wait_prior(0);
    __syncthreads();  // G, the input and the next weight are there for all, this one is not needed
    if (weight) fetch(2, weight);
    bias_gradient(part, own_sums);
    weight_gradient<P>(part, t, own_g, input);
    ++layer;
  }
};

// dn := the gradient of the normalised rows n of x. `last`: loads what follows; weights: of the two
// layers that follow, or nullptr.
template <Precision P, class Load>
__device__ __forceinline__ void projections_backward(Rows& dn, Rows& n, float2 (&stats)[2],
                                                     Pipeline<P>& pipeline,
                                                     const NormedProjections& a, float* parts,
                                                     const Tile& t, const float* x,
                                                     const float* const (&following)[2],
                                                     const Load& last) {
  const size_t parameters = size_t(t.run) * a.stride;
  pipeline.fetch(0, a.layers[0].weight + parameters);
  pipeline.fetch(1, a.layers[1].weight + parameters);
  // Not the previous kernel's, but those before it wrote these.
  load(n, t, x);
  load_stats(stats, t, a.stats);
  wait_for_previous();
  Rows g;
  load(g, t, a.dy[0]);
  normalise(n, stats);
  const float* input = pipeline.store_input(t, n);
  each([&](int h, int c) { dn.at[h][c] = 0; });
  pipeline.begin();
  pipeline.backward(dn, parts, t, g, input, a.layers[2].weight + parameters,
                    [&] { load(g, t, a.dy[1]); });
  pipeline.backward(dn, parts + part_floats, t, g, input, following[0],
                    [&] { load(g, t, a.dy[2]); });
  pipeline.backward(dn, parts + 2 * part_floats, t, g, input, following[1], last);
}

template <Precision P>
__global__ void __launch_bounds__(threads, 2)
    normed_projections_backward_mma_kernel(NormedProjections a) {
  SharedMemory shared;
  Pipeline<P> pipeline(shared);
  const Tile t(a.M);
  Rows dn, n;
  float2 stats[2];
  projections_backward<P>(dn, n, stats, pipeline, a, a.parts + size_t(blockIdx.x) * 3 * part_floats,
                          t, a.x, {nullptr, nullptr}, [] {});
  norm_backward(dn, n, stats);
  write(a.dx, t, dn, a.add_dx);
}

// projected: whether the next block's projections precede.
template <Precision P>
__global__ void __launch_bounds__(threads, 2)
    second_half_backward_mma_kernel(SecondHalf a, NormedProjections next, bool projected) {
  SharedMemory shared;
  Pipeline<P> pipeline(shared);
  float* parts = a.parts + size_t(blockIdx.x) * (projected ? 6 : 3) * part_floats;
  const Tile t(a.M);
  const size_t parameters = size_t(t.run) * a.stride;
  const float* const weights[3] = {a.layers[0].weight + parameters, a.layers[1].weight + parameters,
                                   a.layers[2].weight + parameters};
  Bits kept[3];
#pragma unroll
  for (int layer = 0; layer < 3; ++layer) kept[layer].load(t, a.kept[layer]);
  Rows dy, hidden, g, in, acc;
  float2 stats[2];
  const auto load_first = [&] {
    load(dy, t, a.dy);
    load(hidden, t, a.hidden);
  };
  if (projected) {
    projections_backward<P>(acc, in, stats, pipeline, next, parts, t, a.y, {weights[2], weights[1]},
                            load_first);
    parts += 3 * part_floats;
    norm_backward(acc, in, stats);
    each([&](int h, int c) { dy.at[h][c] += acc.at[h][c]; });
  } else {
    pipeline.fetch(0, weights[2]);
    pipeline.fetch(1, weights[1]);
    wait_for_previous();
    load_first();
    pipeline.begin();
  }

  // acc := the gradient of a layer's input, g that of its output, before dropout.
  const auto backward = [&](int layer, const float* weight, const auto& load) {
    if (a.kept[0]) kept[layer].apply(g, a.scale);
    each([&](int h, int c) { acc.at[h][c] = 0; });
    pipeline.backward(acc, parts + layer * part_floats, t, g, pipeline.store_input(t, in), weight,
                      load);
  };

  g = dy;
  with_activation(a.activation, [&](Activation chosen) {
    each([&](int h, int c) { in.at[h][c] = activation_value(chosen, hidden.at[h][c]); });
  });
  backward(2, weights[0], [&] {
    load(in, t, a.middle);
    load_stats(stats, t, a.stats);
  });

  with_activation(a.activation, [&](Activation chosen) {
    each([&](int h, int c) {
      g.at[h][c] = acc.at[h][c] * activation_slope(chosen, hidden.at[h][c]);
    });
  });
  normalise(in, stats);
  Rows attended;
  backward(1, nullptr, [&] { load(attended, t, a.attended); });

  norm_backward(acc, in, stats);
  each([&](int h, int c) { g.at[h][c] = dy.at[h][c] += acc.at[h][c]; });  // of the middle
  write(a.dx, t, dy, a.add_dx);
  in = attended;
  backward(0, nullptr, [&] { write(a.d_attended, t, acc, a.add_attended); });
}

}  // namespace

void tensor_cores::normed_projections_backward(const NormedProjections& a, int runs, void* stream) {
  for_precision(a.precision, [&](auto chosen) {
    constexpr Precision P = decltype(chosen)::value;
    launch(early({"normed_projections_backward_mma", blocks_for(a.M, runs), threads,
                  Pipeline<P>::bytes}),
           stream, normed_projections_backward_mma_kernel<P>, a);
  });
}

void tensor_cores::second_half_backward(const SecondHalf& a, const NormedProjections* next,
                                        int runs, void* stream) {
  for_precision(a.precision, [&](auto chosen) {
    constexpr Precision P = decltype(chosen)::value;
    launch(early({next ? "projections_and_second_half_backward_mma" : "second_half_backward_mma",
                  blocks_for(a.M, runs), threads, Pipeline<P>::bytes}),
           stream, second_half_backward_mma_kernel<P>, a, next ? *next : NormedProjections{},
           next != nullptr);
  });
}

}  // namespace focus::gpu
