// The kernels of block_backward.cu on tensor cores: the same operations, with what row_mma.cuh says
// of who holds what, and the same parts.
//
// A layer takes one barrier. Before it a warp stores its rows of G and of the layer's input for all
// and multiplies G, in registers, by the layer's weight; after it the warps make the layer's
// gradients, while the weight after the next one and the next rows arrive. What they read is
// written again two layers later.
//
// Measured at 15000 rows on an H200, cold caches: 28 µs for six layers in tf32, 25.5 in bf16, 39.5
// in 3xtf32, 54 in float32 (predicted for tf32 and bf16: 22 to 28). Warps of their own for the
// layers' gradients, beside those that take rows on, left 168 registers a thread: what spilled made
// it 54 µs.
#include "cuda/device/launch.h"
#include "cuda/fast/blocks/row_mma.cuh"

namespace focus::gpu {

namespace {

using namespace row_mma;

constexpr int part_floats = side * side + side;  // a weight's gradient and its bias's

__device__ __forceinline__ void load_stats(float2 (&to)[2], const WarpRows& t,
                                           const float2* stats) {
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

// The layers q, k, v, the MLP's second and first, and W_o have the numbers 0 to 5, in the order of
// the backward; these are the ones to make.
struct Span {
  int first, last;  // 0 or 3; 2 or 5
};

// Blocks of many warps make fewer parts and read weights less often. At 15000 rows the kernel takes
// 29.5 µs instead of 28, but the sums over parts 8 instead of 11.5, and a step 3 % less. With few
// warps there are more blocks: at 1000 rows a step takes 6 % less.
template <int WARPS>
struct Block {
  static constexpr int threads = 32 * WARPS, tile_rows = 16 * WARPS;
  static constexpr int tile_floats = tile_rows * side, sum_floats = WARPS * side;
  static constexpr size_t shared_bytes =
      shared_bytes_for(2 * tile_floats, 2 * tile_floats, 2 * weight_floats, 2 * sum_floats);
  // A warp's share of a layer's gradient: 32 rows of these columns.
  static constexpr int shares = WARPS / 2, columns = side / shares;
};
constexpr int few_warps = 4, many_warps = 8;
bool takes_many(int M) {
  using B = Block<many_warps>;
  return M >= B::tile_rows * device().multiprocessors / 2 &&
         B::shared_bytes <= device().shared_memory;
}

template <Precision P, int WARPS>
__global__ void __launch_bounds__(32 * WARPS, 8 / WARPS)
    block_backward_mma_kernel(OutputAndMlp a, NormQkv next, Span span) {
  using B = Block<WARPS>;
  constexpr int tile_floats = B::tile_floats, sum_floats = B::sum_floats;
  // Two of each: a layer uses those that the one before it does not.
  SharedMemory shared;
  float *g_tiles = shared.array<float>(2 * tile_floats),
        *inputs = shared.array<float>(2 * tile_floats),
        *weights = shared.array<float>(2 * weight_floats),
        *sums = shared.array<float>(2 * sum_floats);
  const bool alone = span.last == 2;
  const WarpRows t(alone ? next.M : a.M, B::tile_rows);
  const size_t parameters = size_t(t.run) * (alone ? next.stride : a.stride);
  const auto fetch = [&](int n) {
    if (n <= span.last)
      copy_weight<Swizzle::by_column, B::threads>(
          weights + n % 2 * weight_floats,
          (n < 3 ? next.layers[n].weight : a.layers[5 - n].weight) + parameters, int(threadIdx.x));
    __pipeline_commit();
  };
  fetch(span.first), fetch(span.first + 1);
  const bool drops = !alone && a.kept[0];
  unsigned kept = 0, kept_later = 0, kept_last = 0;
  if (drops) {
    kept = kept_bits_of(t, a.kept[2]);
    kept_later = kept_bits_of(t, a.kept[1]), kept_last = kept_bits_of(t, a.kept[0]);
  }

  // g: the gradient of the layer's output, dy: of what comes next; in: its input, in float32; dx:
  // the gradient of that.
  Rows g, in, dx, dy, hidden;
  float2 stats[2];
  const float* input = nullptr;  // the same, as the layer's gradients read it
#pragma unroll 1
  for (int n = span.first - 1; n <= span.last; ++n) {
    const int now = n & 1;
    float *g_tile = g_tiles + now * tile_floats, *own_sums = sums + now * sum_floats;
    if (n >= span.first) {
      column_sums(own_sums, t, g);
      g = operand<P>(g);
      store_tile(g_tile, t, g);
      if (n == 0 || n >= 3) {
        float* to = inputs + now * tile_floats;
        store_pairs(to, t, operand<P>(in));
        input = to;
        each([&](int h, int c) { dx.at[h][c] = 0; });
      }
      add_by<P>(dx, t, g, weights + now * weight_floats);
    }

    // What follows needs this, or the layer after it.
    if (n == -1 || n == 3) {
      load(in, t, n == 3 ? a.middle : alone ? next.x : a.y);
      load_stats(stats, t, n == 3 ? a.stats : next.stats);
    }
    if (n < span.first) wait_for_previous();  // all above is from kernels before that one
    if (n <= 2)
      load(dy, t, n < 2 ? next.dy[n + 1] : !alone ? a.dy : next.add_dx ? next.dx : nullptr);
    if (n == 2 && !alone) load(hidden, t, a.hidden);
    if (n == 4) load(hidden, t, a.attended);
    if (n == 5) {
      if (a.add_attended) add(dx, t, a.d_attended);
      store(a.d_attended, t, dx);
    }

    if (n < span.first) {
      __pipeline_wait_prior(1);
      __syncthreads();  // the first weight is there for all
    } else {
      __pipeline_wait_prior(0);
      __syncthreads();  // G, the input and the next weight are there for all; nobody needs this one
      fetch(n + 2);
      const int place = n < 3 ? n : 5 - n + 3 - span.first;
      float* part =
          (alone ? next.parts : a.parts) +
          (size_t(blockIdx.x) * size_t(span.last - span.first + 1) + size_t(place)) * part_floats;
      const int thread = int(threadIdx.x), warp = thread / 32;
      if (thread < side) bias_gradient<WARPS>(part, own_sums, thread);
      weight_gradient<P, B::tile_rows, B::columns>(part, t, g_tile, input, warp / B::shares * 32,
                                                   warp % B::shares * B::columns);
    }

    if (n == -1 || n == 3) normalise(in, stats);
    if ((n == 2 && span.first == 0) || n == 4) {
      norm_backward(dx, in, stats);
      each([&](int h, int c) { dy.at[h][c] += dx.at[h][c]; });
    }
    if (n == 2 && alone) store(next.dx, t, dy);
    if (n == span.last) return;
    if (n == 3)
      with_activation(a.activation, [&](Activation chosen) {
        each([&](int h, int c) {
          g.at[h][c] = dx.at[h][c] * activation_slope(chosen, hidden.at[h][c]);
        });
      });
    else
      g = dy;
    if (n == 2)
      with_activation(a.activation, [&](Activation chosen) {
        each([&](int h, int c) { in.at[h][c] = activation_value(chosen, hidden.at[h][c]); });
      });
    if (n == 4) {
      in = hidden;
      if (a.add_dx) add(dy, t, a.dx);
      store(a.dx, t, dy);
    }
    if (n < 2) continue;
    if (drops) drop(g, kept, a.scale);
    kept = kept_later, kept_later = kept_last;
  }
}

template <int WARPS>
void run_with(const char* name, const OutputAndMlp& a, const NormQkv& next, Span span, int runs,
              void* stream) {
  using B = Block<WARPS>;
  const bool alone = span.last == 2;
  for_tensor_core_precision(alone ? next.precision : a.precision, [&](auto chosen) {
    launch(early({name, tiles_for(alone ? next.M : a.M, B::tile_rows) * size_t(runs), B::threads,
                  B::shared_bytes}),
           stream, block_backward_mma_kernel<decltype(chosen)::value, WARPS>, a, next, span);
  });
}
void run(const char* name, const OutputAndMlp& a, const NormQkv& next, Span span, int runs,
         void* stream) {
  if (takes_many(span.last == 2 ? next.M : a.M))
    run_with<many_warps>(name, a, next, span, runs, stream);
  else
    run_with<few_warps>(name, a, next, span, runs, stream);
}

}  // namespace

int tensor_cores::parts_for(int M) {
  return int(
      tiles_for(M, takes_many(M) ? Block<many_warps>::tile_rows : Block<few_warps>::tile_rows));
}

void tensor_cores::norm_qkv_backward(const NormQkv& a, int runs, void* stream) {
  run("norm_qkv_backward_mma", {}, a, {0, 2}, runs, stream);
}

void tensor_cores::output_and_mlp_backward(const OutputAndMlp& a, const NormQkv* next, int runs,
                                           void* stream) {
  if (next)
    run("norm_qkv_and_output_and_mlp_backward_mma", a, *next, {0, 5}, runs, stream);
  else
    run("output_and_mlp_backward_mma", a, {}, {3, 5}, runs, stream);
}

}  // namespace focus::gpu
