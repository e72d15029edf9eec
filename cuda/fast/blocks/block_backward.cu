// The backward of block_forward.cu: kernels that take a tile of 64 rows through three layers, or,
// between two blocks, through six. Beside the rows' gradients they make the layers' own: a tile's
// part of each, which another kernel adds up in the tiles' order, so that the bits do not depend on
// when blocks run. What the forward did not keep (norms, activations) is made again from what it
// did.
//
// A layer's gradient needs all rows of the tile, that of its input only the warp's own: between two
// barriers stand the first, or the second with all that follows from it for the layer before.
//
// Measured at 15000 rows on an H100, where multiply-adds alone would take 25 µs: 56 µs for the six
// layers, 66 in two kernels (predicted: 50). Tiles of 128 rows halve the parts and the weights'
// traffic, and lost all the same, 2.19 ms a step against 2.16: a block that fills a multiprocessor
// cannot start early.
#include "cuda/device/launch.h"
#include "cuda/fast/blocks/block.cuh"
#include "cuda/fast/blocks/row_tile.cuh"
#include "cuda/ops/activation.cuh"

namespace focus::gpu {

namespace {

using namespace rows;

// The mean and 1/σ of the thread's rows, and x as the forward normalised it: (x − mean) / σ. All is
// 0 in rows that do not exist.
__device__ __forceinline__ void load_stats(float2 (&to)[R], const RowTile& t, const float2* stats) {
#pragma unroll
  for (int i = 0; i < R; ++i) to[i] = t.has(i) ? stats[t.row_of(i)] : make_float2(0, 0);
}
__device__ __forceinline__ void normalise(Fragment& x, const float2 (&stats)[R]) {
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) x[i][j] = (x[i][j] - stats[i].x) * stats[i].y;
}

// to (row i of the tile) := v, or += v
__device__ __forceinline__ void write_row(float* to, const RowTile& t, int i, float (&v)[C],
                                          bool add) {
  if (!t.has(i)) return;
  float* at = to + 4 * t.at.x + t.offset(i);
  if (add) {
    float old[C];
    load_vector<4>(old, at);
#pragma unroll
    for (int j = 0; j < C; ++j) v[j] += old[j];
  }
  store_row(at, v);
}

// In shared memory: the three projections' gradients side by side, or G and the input of one layer.
constexpr int g_floats = side * triple_pitch, g_pitch = triple_pitch;

// dn := the gradient of the normalised rows n; parts: of the projections' gradients. What
// begin_projections_backward() copies is on its way. `before_last` is called when nobody reads
// `weights` any more.
template <class F>
__device__ __forceinline__ void projections_backward(Fragment& dn, const Fragment& n,
                                                     const NormQkv& a, const RowTile& t,
                                                     float* n_tile, float* g,
                                                     float* const (&weights)[2], float* parts,
                                                     const F& before_last) {
  const size_t parameters = size_t(t.run) * a.stride;
  store_tile<pitch>(n_tile, t, n);
  __pipeline_wait_prior(0);
  __syncthreads();  // the rows, W_q and W_k are there for all
  for (int o = int(threadIdx.x); o < 3 * side; o += threads) {
    float sum = 0;
#pragma unroll 16
    for (int y = 0; y < side; ++y) sum += g[y * g_pitch + o];
    parts[o / side * part_floats + side * side + o % side] = sum;
  }
  // The three layers have one input, so their gradients are one product.
  weight_gradients(parts, g, n_tile);
  __syncthreads();  // nobody reads n any more
  copy_weight(n_tile, a.layers[2].weight + parameters);
  __pipeline_commit();
#pragma unroll
  for (int layer = 0; layer < 2; ++layer)
    add_product<g_pitch>(dn, t, g + layer * side, weights[layer]);
  __pipeline_wait_prior(0);
  __syncthreads();  // W_v is there for all, and nobody reads the others any more
  before_last();
  add_product<g_pitch>(dn, t, g + 2 * side, n_tile);
}

// n := the rows that the forward normalised. Starts copying the gradients of what it made of them,
// W_q and W_k.
__device__ __forceinline__ void begin_projections_backward(Fragment& n, float* g,
                                                           float* const (&weights)[2],
                                                           const NormQkv& a, const RowTile& t,
                                                           const float* x) {
  float2 stats[R];
  load_rows(n, t, x);
  load_stats(stats, t, a.stats);
#pragma unroll
  for (int layer = 0; layer < 2; ++layer)
    copy_weight(weights[layer], a.layers[layer].weight + size_t(t.run) * a.stride);
  wait_for_previous();
#pragma unroll
  for (int layer = 0; layer < 3; ++layer)
    copy_tile<g_pitch>(g + layer * side, a.dy[layer] + t.row * side, t.M - t.first);
  __pipeline_commit();
  normalise(n, stats);
}

__global__ void __launch_bounds__(threads, 2) norm_qkv_backward_kernel(NormQkv a) {
  SharedMemory shared;
  float *tile = shared.array<float>(tile_floats), *g = shared.array<float>(g_floats);
  float* const weights[2] = {shared.array<float>(tile_floats), shared.array<float>(tile_floats)};
  const RowTile t(a.M);
  Fragment n, dn = {};
  begin_projections_backward(n, g, weights, a, t, a.x);
  projections_backward(dn, n, a, t, tile, g, weights,
                       a.parts + size_t(blockIdx.x) * 3 * part_floats, [] {});
#pragma unroll
  for (int i = 0; i < R; ++i) {
    norm_backward(dn[i], n[i], t.has(i) ? a.stats[t.row_of(i)].y : 0.f);
    write_row(a.dx, t, i, dn[i], a.add_dx);
  }
}

template <Activation activation, bool projected>
__global__ void __launch_bounds__(threads, 2)
    output_and_mlp_backward_kernel(OutputAndMlp a, NormQkv next) {
  SharedMemory shared;
  float *tile = shared.array<float>(tile_floats), *g = shared.array<float>(g_floats);
  float* const weights[2] = {shared.array<float>(tile_floats), shared.array<float>(tile_floats)};
  float *rows = g + side, *sums = shared.array<float>(TY * side);
  float* masks = shared.array<float>(3 * mask_floats);
  const RowTile t(a.M);
  const size_t parameters = size_t(t.run) * a.stride;
  float* parts = a.parts + size_t(blockIdx.x) * (projected ? 6 : 3) * part_floats;
  Fragment dy, hidden, other, acc;
  const bool drops = a.kept[0];
  const auto load = [&] {
    load_rows(dy, t, a.dy);
    load_rows(hidden, t, a.hidden);
#pragma unroll
    for (int w = 0; w < 2; ++w) {
      copy_weight(weights[w], a.layers[2 - w].weight + parameters);
      __pipeline_commit();
    }
  };

  if (drops) copy_masks(masks, t, a.kept);
  if constexpr (projected) {
    Fragment n, dn = {};
    begin_projections_backward(n, g, weights, next, t, a.y);
    projections_backward(dn, n, next, t, tile, g, weights, parts, load);
#pragma unroll
    for (int i = 0; i < R; ++i) {
      norm_backward(dn[i], n[i], t.has(i) ? next.stats[t.row_of(i)].y : 0.f);
#pragma unroll
      for (int j = 0; j < C; ++j) dy[i][j] += dn[i][j];
    }
    __syncwarp();  // the warp does not read G any more
    parts += 3 * part_floats;
  } else {
    wait_for_previous();
    load();
    __pipeline_wait_prior(1);
    __syncwarp();  // dropout's bits are there for the warp
  }

  // numbers *= what dropout did to the thread's numbers after this layer
  const auto drop = [&](int layer, Fragment& numbers) {
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const unsigned kept = drops ? bits_of_row(masks + layer * mask_floats, t, i) : ~0u;
#pragma unroll
      for (int j = 0; j < C; ++j) numbers[i][j] *= kept >> j & 1 ? a.scale : 0.f;
    }
  };
  // acc is G, the gradient of a layer's output, and `other` the layer's input: stores them for all.
  const auto store = [&] {
    store_tile<g_pitch>(g, t, acc);
    store_tile<g_pitch>(rows, t, other);
    column_sums(sums, t, acc);
  };
  // The layer's gradients from what was stored, then acc := G W.
  const auto layer_backward = [&](int layer, const float* weight) {
    bias_gradient(parts + layer * part_floats, sums);
    weight_gradient<g_pitch>(parts + layer * part_floats, t, g, rows);
    __syncthreads();  // nobody reads others' rows any more
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
      for (int j = 0; j < C; ++j) acc[i][j] = 0;
    add_product<g_pitch>(acc, t, g, weight);
    __syncwarp();  // nor the warp its own
  };

#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) {
      acc[i][j] = dy[i][j];
      other[i][j] = activation_value(activation, hidden[i][j]);
    }
  drop(2, acc);
  store();
  load_rows(other, t, a.middle);  // on its way during the products
  float2 stats[R];
  load_stats(stats, t, a.stats);
  __pipeline_wait_prior(1);
  __syncthreads();  // the rows and W_2 are there for all, and nobody reads W_v any more
  copy_weight(tile, a.layers[0].weight + parameters);
  __pipeline_commit();
  layer_backward(2, weights[0]);

#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) acc[i][j] *= activation_slope(activation, hidden[i][j]);
  normalise(other, stats);
  drop(1, acc);
  store();
  load_rows(hidden, t, a.attended);  // likewise
  __pipeline_wait_prior(1);
  __syncthreads();  // the rows and W_1 are there for all
  layer_backward(1, weights[1]);

#pragma unroll
  for (int i = 0; i < R; ++i) {
    norm_backward(acc[i], other[i], stats[i].y);
#pragma unroll
    for (int j = 0; j < C; ++j) {
      dy[i][j] += acc[i][j];  // of the middle
      acc[i][j] = dy[i][j];
      other[i][j] = hidden[i][j];
    }
    write_row(a.dx, t, i, dy[i], a.add_dx);
  }
  drop(0, acc);
  store();
  __pipeline_wait_prior(0);
  __syncthreads();  // the rows and W_o are there for all
  layer_backward(0, tile);
#pragma unroll
  for (int i = 0; i < R; ++i) write_row(a.d_attended, t, i, acc[i], a.add_attended);
}

// A lane sums four neighbouring numbers, a warp a share of the tiles; the shares are added in
// order.
constexpr int sum_warps = 8, sum_floats = 32 * 4;  // of a block
__global__ void __launch_bounds__(32 * sum_warps)
    sum_parts_kernel(LayerGradients to, const float* parts, int tiles, size_t stride) {
  SharedMemory shared;
  float* shares = shared.array<float>(sum_warps * sum_floats);
  const int floats = to.layers * part_floats, groups = (floats + sum_floats - 1) / sum_floats;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int run = int(blockIdx.x) / groups, e = int(blockIdx.x) % groups * sum_floats + 4 * lane;
  const int first = tiles * warp / sum_warps, last = tiles * (warp + 1) / sum_warps;
  const float* from = parts + size_t(run) * size_t(tiles) * size_t(floats) + size_t(e);
  float4 sum = make_float4(0, 0, 0, 0);
  const auto add = [&](float4 v) { sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w; };
  constexpr int ahead = 10;
  if (e < floats)
    for (int k0 = first; k0 < last; k0 += ahead) {
      float4 next[ahead];
#pragma unroll
      for (int k = 0; k < ahead; ++k)
        next[k] =
            k0 + k < last ? load4(from + size_t(k0 + k) * size_t(floats)) : make_float4(0, 0, 0, 0);
#pragma unroll
      for (int k = 0; k < ahead; ++k) add(next[k]);
    }
  store4(shares + warp * sum_floats + 4 * lane, sum);
  __syncthreads();  // all shares are there
  if (warp != 0 || e >= floats) return;
  for (int w = 1; w < sum_warps; ++w) add(load4(shares + w * sum_floats + 4 * lane));
  const int layer = e / part_floats, within = e % part_floats;
  float* at = (within < side * side ? to.weight : to.bias)[layer];
  if (!at) return;
  at += size_t(run) * stride + size_t(within % (side * side));
  const float4 old = load4(at);
  store4(at, make_float4(old.x + sum.x, old.y + sum.y, old.z + sum.z, old.w + sum.w));
}

int tiles_for(int M) {
  return (M + side - 1) / side;
}

}  // namespace

void norm_qkv_backward(const NormQkv& a, int runs, void* stream) {
  if (a.precision != Precision::fp32) return tensor_cores::norm_qkv_backward(a, runs, stream);
  launch(early({"norm_qkv_backward", size_t(tiles_for(a.M) * runs), threads,
                shared_bytes_for(tile_floats, g_floats, tile_floats, tile_floats)}),
         stream, norm_qkv_backward_kernel, a);
}

size_t block_shared_bytes() {
  return shared_bytes_for(tile_floats, g_floats, tile_floats, tile_floats, TY * side,
                          3 * mask_floats);
}

void output_and_mlp_backward(const OutputAndMlp& a, const NormQkv* next, int runs, void* stream) {
  if (a.precision != Precision::fp32)
    return tensor_cores::output_and_mlp_backward(a, next, runs, stream);
  const size_t blocks = size_t(tiles_for(a.M) * runs);
  for_activation(a.activation, [&](auto chosen) {
    constexpr Activation activation = decltype(chosen)::value;
    if (next)
      launch(early({"norm_qkv_and_output_and_mlp_backward", blocks, threads, block_shared_bytes()}),
             stream, output_and_mlp_backward_kernel<activation, true>, a, *next);
    else
      launch(early({"output_and_mlp_backward", blocks, threads, block_shared_bytes()}), stream,
             output_and_mlp_backward_kernel<activation, false>, a, NormQkv{});
  });
}

size_t part_floats_of(int M, int layers, int runs) {
  return size_t(tiles_for(M) * runs) * size_t(layers * part_floats);
}

void sum_parts(const LayerGradients& to, Precision precision, const float* parts, int M,
               size_t stride, int runs, void* stream) {
  const int groups = (to.layers * part_floats + sum_floats - 1) / sum_floats;
  launch({"sum_parts", size_t(groups * runs), 32 * sum_warps,
          shared_bytes_for(sum_warps * sum_floats)},
         stream, sum_parts_kernel, to, parts,
         precision == Precision::fp32 ? tiles_for(M) : tensor_cores::parts_for(M), stride);
}

}  // namespace focus::gpu
