// All blocks of a model for short sequences, in evaluation, on tensor cores: one kernel. A sequence
// of up to 48 tokens is three warps, whose numbers stay in registers from the first block to the
// last (row_mma.cuh says who holds what). Four sequences share a thread block: shared memory holds
// their keys and values and a block's weights, which arrive in two halves, one while the other is
// used. The warps wait for each other twice a block: for keys and values, and before the next.
//
// A query's scores lie in four lanes, 12 in each. To choose keys, turn after turn looks for the
// largest score below the last one; where two are equal, a slower way finds the keys one by one.
// Scores that a choice depends on are made in 3xtf32 at every precision, so that only queries and
// keys decide how often it differs from float32's.
//
// Measured on an H200: a batch of 6528 sequences of 40 tokens, 5 blocks, top-5, in 1.13 ms in tf32
// (its predecessors, a kernel for attention and one for the rest of each block: 2.6 ms) and in
// 1.89 ms in 3xtf32; 0.1 of them is not this kernel's (predicted for it from the tensor cores'
// rate: 0.4 and 1.2). A scheduler has three warps and issues an instruction every other cycle; the
// tensor cores of 3xtf32 are busy for half of the time.
#include "cuda/device/launch.h"
#include "cuda/fast/blocks/block.cuh"
#include "cuda/fast/blocks/row_mma.cuh"

namespace focus::gpu {

namespace {

using namespace row_mma;

constexpr int tiles = 3, longest = 16 * tiles;  // of a sequence: a warp each; tokens
constexpr int sequences = 4, warps = sequences * tiles, threads = 32 * warps;
constexpr int layers = 6, layer_floats = weight_floats + side;  // of a block, as they lie in memory
constexpr int copying = threads / 3;                            // threads, for each of three layers
using Scores = Columns<tiles>;

__device__ __forceinline__ float row_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(all_lanes, value, 1));
  return fmaxf(value, __shfl_xor_sync(all_lanes, value, 2));
}
__device__ __forceinline__ int row_sum(int value) {
  value += __shfl_xor_sync(all_lanes, value, 1);
  return value + __shfl_xor_sync(all_lanes, value, 2);
}
__device__ __forceinline__ int row_min(int value) {
  value = min(value, __shfl_xor_sync(all_lanes, value, 1));
  return min(value, __shfl_xor_sync(all_lanes, value, 2));
}

// The key of a lane's score c.
__device__ __forceinline__ int key_of(const Lane& lane, int c) {
  return 16 * (c / 4) + 4 * lane.t + c % 4;
}

// Bit c: score c of row h is one of the row's k largest, of equal ones the lower key. One turn for
// each, whatever the scores are.
__device__ __forceinline__ unsigned choose_one_by_one(const Scores& s, const Lane& lane, int h,
                                                      int k, int T) {
  unsigned kept = 0;
  for (int found = 0; found < k; ++found) {
    float best = -INFINITY;
    int first = longest;
#pragma unroll
    for (int c = 0; c < 4 * tiles; ++c)
      if (key_of(lane, c) < T && !(kept >> c & 1)) best = fmaxf(best, s.at[h][c]);
    best = row_max(best);
#pragma unroll
    for (int c = 4 * tiles - 1; c >= 0; --c)
      if (key_of(lane, c) < T && !(kept >> c & 1) && s.at[h][c] == best) first = key_of(lane, c);
    first = row_min(first);
#pragma unroll
    for (int c = 0; c < 4 * tiles; ++c) kept |= unsigned(key_of(lane, c) == first) << c;
  }
  return kept;
}

// The same of both rows. Where no score is there twice, the k-th largest is the largest of those
// below the one before.
__device__ __forceinline__ void choose(unsigned (&kept)[2], const Scores& s, const Lane& lane,
                                       const bool (&has)[2], int k, int T) {
  float bound[2] = {-INFINITY, -INFINITY};
  each<tiles>([&](int h, int c) { bound[h] = fmaxf(bound[h], s.at[h][c]); });
#pragma unroll
  for (int h = 0; h < 2; ++h) bound[h] = row_max(bound[h]);
  for (int turn = 1; turn < k; ++turn) {
    float next[2] = {-INFINITY, -INFINITY};
    each<tiles>([&](int h, int c) {
      next[h] = fmaxf(next[h], s.at[h][c] < bound[h] ? s.at[h][c] : next[h]);
    });
#pragma unroll
    for (int h = 0; h < 2; ++h) bound[h] = row_max(next[h]);
  }
  bool right = true;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    kept[h] = 0;
#pragma unroll
    for (int c = 0; c < 4 * tiles; ++c)
      kept[h] |= unsigned(key_of(lane, c) < T && s.at[h][c] >= bound[h]) << c;
    right &= row_sum(__popc(kept[h])) == k || !has[h];
  }
  if (__ballot_sync(all_lanes, right) == all_lanes) return;
  for (int h = 0; h < 2; ++h) kept[h] = choose_one_by_one(s, lane, h, k, T);
}

// s := its softmax over the kept keys, 0 at others; a row with a NaN has no other weights.
__device__ __forceinline__ void softmax(Scores& s, const unsigned (&kept)[2], const Lane& lane,
                                        float scale, int T) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float top = -INFINITY, sum = 0;
    bool nan = false;
#pragma unroll
    for (int c = 0; c < 4 * tiles; ++c) {
      nan |= key_of(lane, c) < T && s.at[h][c] != s.at[h][c];
      if (kept[h] >> c & 1) top = fmaxf(top, s.at[h][c]);
    }
    top = row_max(top);
#pragma unroll
    for (int c = 0; c < 4 * tiles; ++c) {
      s.at[h][c] = kept[h] >> c & 1 ? fast_exp2(scale * log2_e * (s.at[h][c] - top)) : 0.f;
      sum += s.at[h][c];
    }
    if (nan) sum = NAN;
    const float factor = 1.f / row_mma::row_sum(sum);
#pragma unroll
    for (int c = 0; c < 4 * tiles; ++c) s.at[h][c] *= factor;
  }
}

// A number as a first factor of a product, in a register of its own: an instruction takes four that
// lie side by side, and the compiler would copy those that are also wanted elsewhere. It does not
// know that the addition changes nothing.
//
// At tf32 tensor cores ignore a float's last 13 bits. Multiplied by 1 + 3/8 · 2⁻¹⁰ before, a number
// is off by at most 3/4 of a last place, on average by 0.04 upwards. Rounded it would be off by at
// most 1/2, but operand() takes four instructions. NaN and infinity stay what they are, and a
// number less than 3/4 of a place below infinity becomes infinity.
template <Precision P>
__device__ __forceinline__ float factor(float x) {
  return P == Precision::tf32 ? x * (1 + 0x3p-13f) : P == Precision::tf32x3 ? x + 0.f : x;
}
// GROUPS groups of 16 columns, from `first` on.
template <Precision P, int GROUPS, int ALL>
__device__ __forceinline__ Columns<GROUPS> factors(const Columns<ALL>& x, int first = 0) {
  Columns<GROUPS> result;
  each<GROUPS>([&](int h, int c) { result.at[h][c] = factor<P>(x.at[h][4 * first + c]); });
  return result;
}

// c += A Wᵀ, W's rows as copy_weight() leaves them. At 3xtf32 in two turns of a loop: otherwise the
// compiler splits all of A into its parts first, and has registers left for only one factor of W at
// a time.
template <Precision P, Numbers W_IS, int GROUPS>
__device__ __forceinline__ void add_rows(Columns<GROUPS>& c, const Lane& lane, Rows a,
                                         const float* w) {
  if constexpr (P != Precision::tf32x3) {
    add_by_transposed<P, W_IS>(c, lane, factors<P, 4>(a), w);
  } else {
#pragma unroll 1
    for (int half = 0; half < side; half += side / 2) {
      add_by_transposed<P, W_IS>(c, lane, factors<P, 2>(a), w + half);
      each<2>([&](int h, int n) { a.at[h][n] = a.at[h][n + 8]; });
    }
  }
}
// c += the weights of the values at `values`, likewise.
template <Precision P>
__device__ __forceinline__ void add_values(Rows& c, const Lane& lane, Scores weights,
                                           const float* values) {
  if constexpr (P != Precision::tf32x3) {
    add_by<P, Numbers::rounded>(c, lane, factors<P, tiles>(weights), values);
  } else {
#pragma unroll 1
    for (int key = 0; key < longest; key += 16) {
      add_by<P, Numbers::rounded>(c, lane, factors<P, 1>(weights), values + key * side);
      each<tiles - 1>([&](int h, int n) { weights.at[h][n] = weights.at[h][n + 4]; });
    }
  }
}

template <Precision P, bool CHOOSES>
__global__ void __launch_bounds__(threads, 1) short_sequences_kernel(ShortSequences a) {
  constexpr Precision of_scores = CHOOSES ? Precision::tf32x3 : P;
  SharedMemory shared;
  float* const weights = shared.array<float>(layers * weight_floats);
  float* const biases = shared.array<float>(layers * side);
  float* const all_keys = shared.array<float>(sequences * longest * side);
  float* const all_values = shared.array<float>(sequences * longest * side);
  const Lane lane;
  const int warp = int(threadIdx.x) / 32, of_run = (a.B + sequences - 1) / sequences;
  const int run = int(blockIdx.x) / of_run,
            sequence = int(blockIdx.x) % of_run * sequences + warp / tiles;
  const int token = warp % tiles * 16 + lane.g;
  const bool has[2] = {sequence < a.B && token < a.T, sequence < a.B && token + 8 < a.T};
  const size_t place =
      (size_t(run * a.B + sequence) * size_t(a.T) + size_t(token)) * side + size_t(4 * lane.t);
  const float* const parameters = a.parameters + size_t(run) * a.stride;
  float* const keys = all_keys + warp / tiles * longest * side;
  float* const values = all_values + warp / tiles * longest * side;

  // Of a block's layers q, k and v, or the others: half 0 or 1.
  const auto start_copying = [&](int block, int half) {
    const int layer = 3 * half + int(threadIdx.x) / copying, thread = int(threadIdx.x) % copying;
    const float* const from = parameters + (block * layers + layer) * layer_floats;
    copy_weight<Swizzle::by_row, copying>(weights + layer * weight_floats, from, thread);
    if (4 * thread < side)
      __pipeline_memcpy_async(biases + layer * side + 4 * thread, from + weight_floats + 4 * thread,
                              16);
    __pipeline_commit();
  };
  const auto wait_for_copies = [&](int half) {
    __pipeline_wait_prior(0);
    if constexpr (P != Precision::tf32x3)
      prepare_weight<P, Swizzle::by_row, copying>(
          weights + (3 * half + int(threadIdx.x) / copying) * weight_floats,
          int(threadIdx.x) % copying);
    __syncthreads();
  };
  const auto product = [&](const Rows& in, int layer) {
    Rows out;
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      const float4 b = load4(biases + layer * side + 16 * p + 4 * lane.t);
      set_vector(out, 0, p, b), set_vector(out, 1, p, b);
    }
    add_rows<P, Numbers::prepared>(out, lane, in, weights + layer * weight_floats);
    return out;
  };

  // Keys and values after the last token are 0: others would reach the sums as 0 · NaN.
  const auto store = [&]<Swizzle S>(float* to, const Rows& from) {
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int p = 0; p < 4; ++p)
        store4(to + swizzled<S>(warp % tiles * 16 + lane.g, lane.t, 8 * h, 4 * p),
               has[h] ? vector(from, h, p) : make_float4(0, 0, 0, 0));
  };

  start_copying(0, 0);
  wait_for_previous();
  Rows x;
#pragma unroll
  for (int h = 0; h < 2; ++h)
#pragma unroll
    for (int p = 0; p < 4; ++p)
      set_vector(
          x, h, p,
          has[h] ? load4(a.x + place + size_t(8 * h * side + 16 * p)) : make_float4(0, 0, 0, 0));

#pragma unroll 1
  for (int block = 0; block < a.blocks; ++block) {
    // q's, k's and v's weights are there; nobody reads the others, keys or values any more.
    wait_for_copies(0);
    start_copying(block, 1);
    Rows in = x, acc;
    float2 stats[2];
    normalise(in, block == 0 ? a.first_epsilon : a.epsilon, stats);
#pragma unroll 1
    for (int n = 0; n < 3; ++n) {  // k, v, q
      acc = product(in, (n + 1) % 3);
      if (n == 0) store.template operator()<Swizzle::by_row>(keys, factors<of_scores, 4>(acc));
      if (n == 1) store.template operator()<Swizzle::by_column>(values, factors<P, 4>(acc));
    }
    // Keys, values and the other weights are there; nobody reads the first ones any more.
    wait_for_copies(1);
    if (block + 1 < a.blocks) start_copying(block + 1, 0);

    Scores s{};
    add_rows<of_scores, Numbers::rounded>(s, lane, acc, keys);
    unsigned kept[2];
    if (CHOOSES) {
      each<tiles>([&](int h, int c) {
        s.at[h][c] = key_of(lane, c) < a.T ? a.sign * s.at[h][c] : -INFINITY;
      });
      choose(kept, s, lane, has, min(a.k, a.T), a.T);
      each<tiles>([&](int h, int c) { s.at[h][c] *= a.sign; });
    } else {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        kept[h] = 0;
#pragma unroll
        for (int c = 0; c < 4 * tiles; ++c) kept[h] |= unsigned(key_of(lane, c) < a.T) << c;
      }
    }
    softmax(s, kept, lane, a.scale, a.T);
    in = Rows{};
    add_values<P>(in, lane, s, values);

#pragma unroll 1
    for (int n = 0; n < 3; ++n) {  // W_o, the MLP's first and second
      acc = product(in, 3 + n);
      if (n == 1) {
        with_activation(a.activation, [&](Activation chosen) {
          each([&](int h, int c) { in.at[h][c] = activation_value(chosen, acc.at[h][c]); });
        });
        continue;
      }
      each([&](int h, int c) { in.at[h][c] = x.at[h][c] += acc.at[h][c]; });
      if (n == 0) normalise(in, a.epsilon, stats);
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h)
#pragma unroll
    for (int p = 0; p < 4; ++p)
      if (has[h]) store4(a.y + place + size_t(8 * h * side + 16 * p), vector(x, h, p));
}

constexpr size_t shared_bytes = shared_bytes_for(
    layers * weight_floats, layers* side, sequences* longest* side, sequences* longest* side);

}  // namespace

bool fits_short_sequences(Precision precision, Pattern pattern, bool causal, int T) {
  return precision != Precision::fp32 && T <= longest && !causal &&
         (pattern == Pattern::full || pattern == Pattern::topk || pattern == Pattern::bottomk) &&
         shared_bytes <= device().shared_memory;
}

void short_sequences(const ShortSequences& a, Precision precision, int runs, void* stream) {
  const size_t blocks = size_t((a.B + sequences - 1) / sequences) * size_t(runs);
  const LaunchSize size = early({"short_sequences", blocks, threads, shared_bytes});
  for_tensor_core_precision(precision, [&](auto chosen) {
    constexpr Precision P = decltype(chosen)::value;
    a.k > 0 ? launch(size, stream, short_sequences_kernel<P, true>, a)
            : launch(size, stream, short_sequences_kernel<P, false>, a);
  });
}

}  // namespace focus::gpu
