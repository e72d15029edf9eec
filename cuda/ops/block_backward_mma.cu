// The kernels of block_backward.cu on tensor cores: the same operations, with what row_mma.cuh says
// of who holds what, and the same parts.
//
// Four warps take the rows through the layers: rows of G, the gradient of a layer's output, times
// its weight, and what lies between two layers. Two more warps make the layers' own gradients from
// what those left of the layer before, G and its input, and fetch weights: so the first do not wait
// for what nothing depends on. All meet once a layer; what one layer uses of shared memory the
// next one leaves alone.
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

// The layers q, k, v, the MLP's second and first, and W_o have the numbers 0 to 5, in the order of
// the backward; these are the ones to make.
struct Span {
  int first, last;  // 0 or 3; 2 or 5
};

constexpr int gradient_threads = 64, all_threads = threads + gradient_threads;
constexpr size_t shared_bytes =
    shared_bytes_for(2 * tile_floats, 2 * tile_floats, 2 * tile_floats, 2 * warps * side);

// Called by all warps, from two places.
__device__ __forceinline__ void meet() {
  __syncthreads();
}

template <Precision P>
__global__ void __launch_bounds__(all_threads, 2)
    block_backward_mma_kernel(SecondHalf a, NormedProjections next, Span span) {
  // Two of each, for layers with an even and an odd number.
  SharedMemory shared;
  float *g_tiles = shared.array<float>(2 * tile_floats),
        *inputs = shared.array<float>(2 * tile_floats),
        *weights = shared.array<float>(2 * tile_floats),
        *sums = shared.array<float>(2 * warps * side);
  const bool alone = span.last == 2;
  const Tile t(alone ? next.M : a.M);

  if (int(threadIdx.x) >= threads) {
    const int thread = int(threadIdx.x) - threads;
    const size_t parameters = size_t(t.run) * (alone ? next.stride : a.stride);
    const auto fetch = [&](int n) {
      if (n <= span.last)
        copy_weight<Swizzle::by_column, gradient_threads>(
            weights + n % 2 * tile_floats,
            (n < 3 ? next.layers[n].weight : a.layers[5 - n].weight) + parameters, thread);
      __pipeline_commit();
    };
    float* parts = (alone ? next.parts : a.parts) +
                   size_t(blockIdx.x) * size_t(span.last - span.first + 1) * part_floats;
    fetch(span.first), fetch(span.first + 1);
    wait_for_previous();
#pragma unroll 1
    for (int n = span.first - 1;; ++n) {
      if (n > span.first) {
        const int made = n - 1, odd = made & 1, place = made < 3 ? made : 8 - made - span.first;
        float* part = parts + place * part_floats;
        bias_gradient(part, sums + odd * warps * side, thread);
        weight_gradient<P>(part, t, g_tiles + odd * tile_floats,
                           inputs + (made < 3 ? 0 : odd) * tile_floats, thread / 32 * 32);
        if (made == span.last) return;
      }
      __pipeline_wait_prior(0);
      meet();
      if (n >= span.first) fetch(n + 2);
    }
  }

  const bool drops = !alone && a.kept[0];
  unsigned kept = 0, kept_later = 0, kept_last = 0;
  if (drops) {
    kept = kept_bits_of(t, a.kept[2]);
    kept_later = kept_bits_of(t, a.kept[1]), kept_last = kept_bits_of(t, a.kept[0]);
  }
  const float* x = alone ? next.x : a.y;  // what the projections' input is made of
  // g: the gradient of the layer's output; dx: of its input; dy: of what lies between two norms.
  Rows g, dx, dy;
  float2 stats[2];
#pragma unroll 1
  for (int n = span.first - 1;; ++n) {
    // What the next layer's input is made of, and once more, so that it need not be held, what
    // this layer's was.
    Rows fresh, again;
    if (n >= span.first) add_by<P>(dx, t, g, weights + (n & 1) * tile_floats);
    // What comes after this layer, and before the next one.
    if (n == -1 || n == 3) {
      load(fresh, t, n == 3 ? a.middle : x);
      load_stats(stats, t, n == 3 ? a.stats : next.stats);
    }
    if (n < span.first) wait_for_previous();  // all above is from kernels before that one
    if (n <= 2)
      load(dy, t, n < 2 ? next.dy[n + 1] : !alone ? a.dy : next.add_dx ? next.dx : nullptr);
    if (n == 2 && !alone) load(fresh, t, a.hidden);
    if (n == 4) load(fresh, t, a.attended);
    if (n >= 2) load(again, t, n == 2 ? x : n == 3 ? a.hidden : a.middle);
    if (n == 5) {
      if (a.add_attended) add(dx, t, a.d_attended);
      store(a.d_attended, t, dx);
    }
    // The next layer's weight and this one's G and input are there for all; nobody reads this
    // weight any more, nor what the layer before left.
    meet();

    if ((n == 2 && span.first == 0) || n == 4) {
      normalise(again, stats);
      norm_backward(dx, again, stats);
      each([&](int h, int c) { dy.at[h][c] += dx.at[h][c]; });
    }
    if (n == 2 && alone) store(next.dx, t, dy);
    if (n == span.last) return;
    if (n == 3)
      with_activation(a.activation, [&](Activation chosen) {
        each([&](int h, int c) {
          g.at[h][c] = dx.at[h][c] * activation_slope(chosen, again.at[h][c]);
        });
      });
    else
      g = dy;
    if (n == 4) {
      if (a.add_dx) add(dy, t, a.dx);
      store(a.dx, t, dy);
    }
    if (n >= 2) {
      if (drops) drop(g, kept, a.scale);
      kept = kept_later, kept_later = kept_last;
    }
    const int odd = (n + 1) & 1;
    column_sums(sums + odd * warps * side, t, g);
    g = operand<P>(g);
    store_tile(g_tiles + odd * tile_floats, t, g);
    if (n == 0 || n == 1) continue;
    if (n == -1 || n == 3) normalise(fresh, stats);
    if (n == 2)
      with_activation(a.activation, [&](Activation chosen) {
        each([&](int h, int c) { fresh.at[h][c] = activation_value(chosen, fresh.at[h][c]); });
      });
    store_pairs(inputs + odd * tile_floats, t, operand<P>(fresh));
    each([&](int h, int c) { dx.at[h][c] = 0; });
  }
}

void run(const char* name, const SecondHalf& a, const NormedProjections& next, Span span, int runs,
         void* stream) {
  const bool alone = span.last == 2;
  for_precision(alone ? next.precision : a.precision, [&](auto chosen) {
    launch(early({name, blocks_for(alone ? next.M : a.M, runs), all_threads, shared_bytes}), stream,
           block_backward_mma_kernel<decltype(chosen)::value>, a, next, span);
  });
}

}  // namespace

void tensor_cores::normed_projections_backward(const NormedProjections& a, int runs, void* stream) {
  run("normed_projections_backward_mma", {}, a, {0, 2}, runs, stream);
}

void tensor_cores::second_half_backward(const SecondHalf& a, const NormedProjections* next,
                                        int runs, void* stream) {
  if (next)
    run("projections_and_second_half_backward_mma", a, *next, {0, 5}, runs, stream);
  else
    run("second_half_backward_mma", a, {}, {3, 5}, runs, stream);
}

}  // namespace focus::gpu
