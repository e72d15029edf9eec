// The kernels of block_forward.cu on tensor cores: the same operations, with what row_mma.cuh says
// of who holds what. Warps meet only where weights arrive.
//
// One kernel, whose layers are the turns of a loop: 15000 rows are seven warps a multiprocessor,
// which go through the code once. With six products one behind the other it was fetching the code
// that took longest, in the backward 71 µs (`no_instruction` in the profiler); as a loop 30.
//
// Measured at 15000 rows on an H200, cold caches: 15.3 µs from one attention to the next in tf32,
// 14.7 in bf16, 22 in 3xtf32, 33 in float32 (predicted for tf32 and bf16: 14). Blocks of 128 rows
// take 16.4 there; at 65280 rows they take 62 in tf32 (predicted: 45).
#include "cuda/device/launch.h"
#include "cuda/fast/blocks/row_mma.cuh"

namespace focus::gpu {

namespace {

using namespace row_mma;

// Of a thread block: few, so that all multiprocessors have one, or many, which share the weights.
constexpr int few_warps = 4, many_warps = 8;

// stats: may be nullptr.
__device__ __forceinline__ void normalise_rows(Rows& x, const WarpRows& t, float epsilon,
                                               float2* stats) {
  float2 own_stats[2];
  normalise(x, epsilon, own_stats);
#pragma unroll
  for (int h = 0; h < 2; ++h)
    if (t.t == 0 && t.has(h) && stats) stats[t.row_of(h)] = own_stats[h];
}

// The layers W_o, the MLP's two, q, k, v have the numbers 0 to 5; these are the ones to make.
struct Span {
  int first, last;  // 0 or 3; 2 or 5
};

template <Precision P, int WARPS>
__global__ void __launch_bounds__(32 * WARPS, 2)
    block_forward_mma_kernel(OutputAndMlp a, NormQkv next, Span span) {
  constexpr int threads = 32 * WARPS, tile_rows = 16 * WARPS;
  const int count = span.last - span.first + 1;
  SharedMemory shared;
  float *weights = shared.array<float>(count * weight_floats),
        *biases = shared.array<float>(count * side);
  const int M = span.first == 0 ? a.M : next.M;
  const WarpRows t(M, tile_rows);
  const size_t parameters = size_t(t.run) * (span.first == 0 ? a.stride : next.stride);
  // In three groups: W_o, the MLP's, the projections'.
#pragma unroll
  for (int n = 0; n < 6; ++n) {
    if (span.first <= n && n <= span.last) {
      const FusedLayer& layer = n < 3 ? a.layers[n] : next.layers[n - 3];
      copy_weight<Swizzle::by_row, threads>(weights + (n - span.first) * weight_floats,
                                            layer.weight + parameters, int(threadIdx.x));
      copy_bias(biases + (n - span.first) * side, layer.bias + parameters);
    }
    if (n == 0 || n == 2 || n == 5) __pipeline_commit();
  }
  const bool drops = span.first == 0 && a.kept[0];
  unsigned kept = 0, kept_later = 0, kept_last = 0;
  Rows middle, in;
  if (span.first == 0) {
    // Not the previous kernel, but those before it wrote these.
    if (drops) {
      kept = kept_bits_of(t, a.kept[0]);
      kept_later = kept_bits_of(t, a.kept[1]), kept_last = kept_bits_of(t, a.kept[2]);
    }
    load(middle, t, a.x);
  }
  wait_for_previous();
  load(in, t, span.first == 0 ? a.attended : next.x);

#pragma unroll 1
  for (int n = span.first == 0 ? 0 : 2;; ++n) {
    if (n == 0) __pipeline_wait_prior(2);
    if (n == 1) __pipeline_wait_prior(1);
    if (n == 2) __pipeline_wait_prior(0);
    if (n < 3) __syncthreads();  // what was copied is there for all
    Rows acc;
    if (n >= span.first) {
      const float* bias = biases + (n - span.first) * side + 4 * t.t;
#pragma unroll
      for (int p = 0; p < 4; ++p) {
        const float4 b = load4(bias + 16 * p);
        set_vector(acc, 0, p, b), set_vector(acc, 1, p, b);
      }
      add_by_transposed<P>(acc, t, operand<P>(in), weights + (n - span.first) * weight_floats);
      if (drops && n < 3) drop(acc, kept, a.scale);
      kept = kept_later, kept_later = kept_last;
      if (n == 0 || n == 2)
        each([&](int h, int c) { acc.at[h][c] = middle.at[h][c] += acc.at[h][c]; });
      store(n == 0 ? a.middle : n == 1 ? a.hidden : n == 2 ? a.y : next.y[n - 3], t, acc);
      if (n == span.last) return;
      if (n > 2) continue;
      in = acc;
    }
    if (n != 1)
      normalise_rows(in, t, n == 0 ? a.epsilon : next.epsilon, n == 0 ? a.stats : next.stats);
    else
      with_activation(a.activation, [&](Activation chosen) {
        each([&](int h, int c) { in.at[h][c] = activation_value(chosen, in.at[h][c]); });
      });
  }
}

void run(const char* name, const OutputAndMlp& a, const NormQkv& next, Span span, int runs,
         void* stream) {
  const int count = span.last - span.first + 1, M = span.first == 0 ? a.M : next.M;
  const size_t bytes = shared_bytes_for(count * weight_floats, count * side);
  const Precision precision = span.first == 0 ? a.precision : next.precision;
  const auto tiles = [&](int warps) { return tiles_for(M, 16 * warps) * size_t(runs); };
  const bool many = tiles(many_warps) >= size_t(2 * device().multiprocessors);
  for_tensor_core_precision(precision, [&](auto chosen) {
    constexpr Precision P = decltype(chosen)::value;
    const auto start = [&](auto warps) {
      constexpr int WARPS = decltype(warps)::value;
      launch(early({name, tiles(WARPS), 32 * WARPS, bytes}), stream,
             block_forward_mma_kernel<P, WARPS>, a, next, span);
    };
    many ? start(std::integral_constant<int, many_warps>{})
         : start(std::integral_constant<int, few_warps>{});
  });
}

}  // namespace

void tensor_cores::norm_qkv_forward(const NormQkv& a, int runs, void* stream) {
  run("norm_qkv_mma", {}, a, {3, 5}, runs, stream);
}

void tensor_cores::output_and_mlp_forward(const OutputAndMlp& a, const NormQkv* next, int runs,
                                          void* stream) {
  if (next)
    run("output_and_mlp_and_norm_qkv_mma", a, *next, {0, 5}, runs, stream);
  else
    run("output_and_mlp_mma", a, {}, {0, 2}, runs, stream);
}

}  // namespace focus::gpu
