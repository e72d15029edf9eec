// The backward of block_forward.cu: two kernels, each of which takes a tile of 64 rows through
// three layers. Beside the rows' gradients they make the layers' own: a tile's part of each, which
// a third kernel adds up in the tiles' order, so that the bits do not depend on when blocks run.
// What the forward did not keep (norms, activations) is made again from what it did.
#include "cuda/device/launch.h"
#include "cuda/ops/activation.cuh"
#include "cuda/ops/block.cuh"
#include "cuda/ops/row_tile.cuh"

namespace focus::gpu {

namespace {

using namespace rows;

// (x − mean) / σ as the forward made it; 0 in rows that do not exist.
__device__ __forceinline__ void normalise(Fragment& n, const Tile& t, const float2* stats) {
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const float2 s = t.has(i) ? stats[t.row + size_t(t.y(i))] : make_float2(0, 0);
#pragma unroll
    for (int j = 0; j < C; ++j) n[i][j] = t.has(i) ? (n[i][j] - s.x) * s.y : 0.f;
  }
}

__device__ __forceinline__ void read_tile_row(float (&v)[C], const Tile& t, const float* tile,
                                              int i) {
  load_vector<4>(v, tile + t.y(i) * pitch + 4 * t.at.x);
}

// to (row i of the tile) := v, or += v
__device__ __forceinline__ void write_row(float* to, const Tile& t, int i, float (&v)[C],
                                          bool add) {
  if (!t.has(i)) return;
  float* at = to + t.offset(i) + 4 * t.at.x;
  if (add) {
    float old[C];
    load_vector<4>(old, at);
#pragma unroll
    for (int j = 0; j < C; ++j) v[j] += old[j];
  }
  store_row(at, v);
}

// The three layers have one input, so their gradients are one product, and so is that of the input.
__global__ void __launch_bounds__(threads, 2)
    normed_projections_backward_kernel(NormedProjections a) {
  SharedMemory shared;
  float *n = shared.array<float>(tile_floats), *g = shared.array<float>(side * triple_pitch);
  float* weights[2] = {shared.array<float>(tile_floats), shared.array<float>(tile_floats)};
  const Tile t(a.M);
  const size_t parameters = size_t(t.run) * a.stride;
  float* parts = a.parts + size_t(blockIdx.x) * 3 * part_floats;
#pragma unroll
  for (int layer = 0; layer < 3; ++layer)
    copy_tile<triple_pitch>(g + layer * side, a.dy[layer] + t.row * side, t.M - t.first);
  copy_weight(weights[0], a.layers[0].weight + parameters);
  __pipeline_commit();
  copy_weight(weights[1], a.layers[1].weight + parameters);
  __pipeline_commit();
  {
    Fragment normed;
    load_rows(normed, t, a.x);
    normalise(normed, t, a.stats);
    store_tile(n, t, normed);
  }
  __pipeline_wait_prior(1);
  __syncthreads();  // the rows and W_q are there for all
  for (int o = int(threadIdx.x); o < 3 * side; o += threads) {
    float sum = 0;
#pragma unroll 16
    for (int y = 0; y < side; ++y) sum += g[y * triple_pitch + o];
    parts[o / side * part_floats + side * side + o % side] = sum;
  }
  weight_gradients(parts, g, n);
  Fragment dn = {};
  add_product<triple_pitch>(dn, t, g, weights[0]);
  __syncthreads();  // nobody reads W_q any more
  copy_weight(weights[0], a.layers[2].weight + parameters);
  __pipeline_commit();
  __pipeline_wait_prior(1);
  __syncthreads();  // W_k is there for all
  add_product<triple_pitch>(dn, t, g + side, weights[1]);
  __pipeline_wait_prior(0);
  __syncthreads();  // W_v is there for all
  add_product<triple_pitch>(dn, t, g + 2 * side, weights[0]);
#pragma unroll
  for (int i = 0; i < R; ++i) {
    float normed[C];
    read_tile_row(normed, t, n, i);
    norm_backward(dn[i], normed, t.has(i) ? a.stats[t.row + size_t(t.y(i))].y : 0.f);
    write_row(a.dx, t, i, dn[i], a.add_dx);
  }
}

template <Activation activation>
__global__ void __launch_bounds__(threads, 2) second_half_backward_kernel(SecondHalf a) {
  SharedMemory shared;
  float *g = shared.array<float>(tile_floats), *rows = shared.array<float>(tile_floats);
  float* weights[2] = {shared.array<float>(tile_floats), shared.array<float>(tile_floats)};
  float* sums = shared.array<float>(TY * side);
  const Tile t(a.M);
  const size_t parameters = size_t(t.run) * a.stride;
  float* parts = a.parts + size_t(blockIdx.x) * 3 * part_floats;
  copy_weight(weights[0], a.layers[2].weight + parameters);
  __pipeline_commit();
  copy_weight(weights[1], a.layers[1].weight + parameters);
  __pipeline_commit();
  Fragment dy, hidden, other, acc;
  load_rows(dy, t, a.dy);
  load_rows(hidden, t, a.hidden);
  unsigned kept[3];
#pragma unroll
  for (int m = 0; m < 3; ++m) kept[m] = load_mask(t, a.kept[m]);
  // What dropout did to the thread's number (i, j), after this layer.
  const auto factor = [&](int layer, int i, int j) {
    return kept[layer] >> (4 * i + j) & 1 ? a.scale : 0.f;
  };
  // G (in registers) and the input of one layer: its gradients, and acc = G W.
  const auto layer_backward = [&](int layer, const float* weight) {
    bias_gradient(parts + layer * part_floats, sums);
    weight_gradient(parts + layer * part_floats, t, g, rows);
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
      for (int j = 0; j < C; ++j) acc[i][j] = 0;
    add_product(acc, t, g, weight);
  };

#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) {
      acc[i][j] = dy[i][j] * factor(2, i, j);
      other[i][j] = activation_value(activation, hidden[i][j]);
    }
  store_tile(g, t, acc);
  store_tile(rows, t, other);
  column_sums(sums, t, acc);
  load_rows(other, t, a.middle);  // on its way during the product
  float2 stats[R];
#pragma unroll
  for (int i = 0; i < R; ++i)
    stats[i] = t.has(i) ? a.stats[t.row + size_t(t.y(i))] : make_float2(0, 0);
  __pipeline_wait_prior(1);
  __syncthreads();  // the rows and W_2 are there for all
  layer_backward(2, weights[0]);
  __syncthreads();  // nobody reads them any more

  copy_weight(weights[0], a.layers[0].weight + parameters);
  __pipeline_commit();
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) {
      acc[i][j] *= activation_slope(activation, hidden[i][j]) * factor(1, i, j);
      other[i][j] = t.has(i) ? (other[i][j] - stats[i].x) * stats[i].y : 0.f;
    }
  store_tile(g, t, acc);
  store_tile(rows, t, other);
  column_sums(sums, t, acc);
  load_rows(hidden, t, a.attended);  // likewise
  __pipeline_wait_prior(1);
  __syncthreads();  // the rows and W_1 are there for all
  layer_backward(1, weights[1]);
  __syncthreads();  // nobody reads them any more

#pragma unroll
  for (int i = 0; i < R; ++i) {
    float normed[C];
    read_tile_row(normed, t, rows, i);
    norm_backward(acc[i], normed, stats[i].y);
#pragma unroll
    for (int j = 0; j < C; ++j) {
      dy[i][j] += acc[i][j];  // of the middle
      acc[i][j] = dy[i][j] * factor(0, i, j);
    }
    write_row(a.dx, t, i, dy[i], a.add_dx);
  }
  store_tile(g, t, acc);
  store_tile(rows, t, hidden);
  column_sums(sums, t, acc);
  __pipeline_wait_prior(0);
  __syncthreads();  // the rows and W_o are there for all
  layer_backward(0, weights[0]);
#pragma unroll
  for (int i = 0; i < R; ++i) write_row(a.d_attended, t, i, acc[i], a.add_attended);
}

// A warp sums a share of the tiles for 32 numbers; the shares are added in order.
constexpr int sum_warps = 8;
__global__ void __launch_bounds__(32 * sum_warps)
    sum_parts_kernel(LayerGradients to, const float* parts, int tiles, size_t stride) {
  SharedMemory shared;
  float* shares = shared.array<float>(sum_warps * 32);
  constexpr int groups = 3 * part_floats / 32;
  static_assert(3 * part_floats % 32 == 0);
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int run = int(blockIdx.x) / groups, e = int(blockIdx.x) % groups * 32 + lane;
  const int first = tiles * warp / sum_warps, last = tiles * (warp + 1) / sum_warps;
  const float* from = parts + (size_t(run) * size_t(tiles)) * 3 * part_floats + size_t(e);
  float sum = 0;
#pragma unroll 8
  for (int k = first; k < last; ++k) sum += from[size_t(k) * 3 * part_floats];
  shares[warp * 32 + lane] = sum;
  __syncthreads();  // all shares are there
  if (warp != 0) return;
  for (int w = 1; w < sum_warps; ++w) sum += shares[w * 32 + lane];
  const int layer = e / part_floats, within = e % part_floats;
  float* at = within < side * side ? to.weight[layer] : to.bias[layer];
  if (at) at[size_t(run) * stride + size_t(within % (side * side))] += sum;
}

int tiles_for(int M) {
  return (M + side - 1) / side;
}

}  // namespace

void normed_projections_backward(const NormedProjections& a, int runs, void* stream) {
  launch({"normed_projections_backward", size_t(tiles_for(a.M) * runs), threads,
          shared_bytes_for(tile_floats, side * triple_pitch, tile_floats, tile_floats)},
         stream, normed_projections_backward_kernel, a);
}

void second_half_backward(const SecondHalf& a, int runs, void* stream) {
  for_activation(a.activation, [&](auto activation) {
    launch({"second_half_backward", size_t(tiles_for(a.M) * runs), threads,
            shared_bytes_for(tile_floats, tile_floats, tile_floats, tile_floats, TY * side)},
           stream, second_half_backward_kernel<decltype(activation)::value>, a);
  });
}

void sum_parts(const LayerGradients& to, const float* parts, int M, size_t stride, int runs,
               void* stream) {
  launch({"sum_parts", size_t(3 * part_floats / 32 * runs), 32 * sum_warps,
          shared_bytes_for(32 * sum_warps)},
         stream, sum_parts_kernel, to, parts, tiles_for(M), stride);
}

}  // namespace focus::gpu
