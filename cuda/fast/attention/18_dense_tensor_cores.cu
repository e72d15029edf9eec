// Rung 18, dense forward on tensor cores, at 3xtf32, tf32 or bf16: scores, softmax and output in
// one kernel, with no T × T matrix in memory (FlashAttention-2, Dao 2023, algorithm 1), after one
// that rounds q, k and v.
//
// D a multiple of 4 from 16 to 64; sums, weights and their logarithm in float32. A row with a NaN
// score becomes a NaN row. Infinite numbers stay infinite in tf32 and bf16, where the largest
// finite ones become infinite too, and become NaN at 3xtf32.
//
// Predicted at (25,1,600,64) in a training step, with dropout: 3.5 + 10.5 µs in bf16, by 0.6
// products of 16 × 8 × 16 a cycle, two reads of shared memory for each, and 10 instructions for a
// weight beside them; 4 + 17.5 in tf32, where a product has half the inner numbers. Measured on an
// H100: 5.3 + 17.7 and 7.2 + 27.7 (rung 14: 44 + 53). Products take a third of the cycles; the rest
// is four warps on a scheduler that wait for shared memory and for each other, and a fifth goes to
// the beginning and the end. No faster: warps with 32 queries, which read keys half as often but
// are half as many; blocks of 64 queries, two at a time (tf32: 10 % slower). Dropout's words that
// each lane read from memory itself cost 1.5 µs; they come with the tiles.
// At (16,16,2048,64), without dropout, on an H200: 1.37 ms in bf16 and 2.34 in tf32, 200 and 117
// TFLOP/s. (In another run, on a host that was busy with something else, tf32 took 4.9.)
#include <algorithm>
#include <cmath>

#include "cuda/device/device.h"
#include "cuda/fast/attention/rounded.cuh"

namespace focus::gpu {

std::string unsupported_on_tensor_cores(const Call& c) {
  if (c.precision == Precision::fp32) return "for --precision 3xtf32, tf32 and bf16";
  if (std::string why = wider_than_64(c); !why.empty()) return why;
  if (const std::string why = unsupported_width(c); !why.empty()) return why;
  if (const std::string why = tensor_core_problem(); !why.empty()) return why;
  size_t bytes = 0;
  for_precision_and_width(c, [&](auto precision, auto width) {
    bytes = RoundedTiles<decltype(precision)::value, decltype(width)::value>::shared_bytes;
  });
  return too_little_shared_memory(bytes);
}

namespace {

// A block takes 16 · GROUPS queries, two of its warps each 16 of them: one the even 32 keys, one
// the odd ones.
template <Precision P, int W, int GROUPS>
__global__ void __launch_bounds__(64 * GROUPS, 1)
    dense_forward_18(const unsigned* copies, Heads o, float* lse, KeepBits keep, float to_log2) {
  using X = RoundedTiles<P, W>;
  constexpr int threads = 64 * GROUPS, rows = 16 * GROUPS;
  SharedMemory shared;
  unsigned* steps_memory = shared.array<unsigned>(2 * X::step_words);
  const X at;
  const int warp = int(threadIdx.x) / 32, group = warp % GROUPS, half = warp / GROUPS;
  const int T = o.T, padded = padded_rows(T), blocks = (T + rows - 1) / rows;
  const int batch_head = int(blockIdx.x) / blocks, block_row = int(blockIdx.x) % blocks * rows;
  const ptrdiff_t tensor = ptrdiff_t{o.B} * o.H * padded * X::words;
  const unsigned* q = copies + ptrdiff_t{batch_head} * padded * X::words;
  const unsigned *k = q + tensor, *v = k + tensor;
  const int steps = (T + X::rows - 1) / X::rows;
  const auto copy = [&](int step) {
    if (step < steps) {
      unsigned* to = steps_memory + step % 2 * X::step_words;
      X::template copy<threads>(to, k + step * (X::rows * X::words));
      X::template copy<threads>(to + X::tile_words, v + step * (X::rows * X::words));
      X::template copy_bits<threads, rows>(to, keep, batch_head, T, block_row, step * X::rows);
    }
    __pipeline_commit();
  };
  X::template keep_all<threads>(steps_memory, keep);
  wait_for_previous();
  copy(0);
  typename X::A a[W / 16];
  at.load_a(a, q + (block_row + 16 * group) * X::words);

  // Of the queries row(0) and row(1) of the warp: where scores are seen from, in powers of 2, and
  // the lane's part of the weights' sum. As long as no score exceeds it by more than 2^8, it stays.
  float base[2] = {-INFINITY, -INFINITY}, l[2] = {}, sum[W / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    __pipeline_wait_prior(0);
    __syncthreads();  // this step is there for all, and nobody reads the one before
    copy(step + 1);
    const unsigned* tile = steps_memory + step % 2 * X::step_words;
    const unsigned* words = tile + X::bits_at + 16 * group;
#pragma unroll 1
    for (int x0 = 32 * half; x0 < X::rows; x0 += 64) {
      const int j0 = step * X::rows + x0;
      if (j0 >= T) break;
      float s[4][4];
      at.multiply_rows(s, a, tile, x0);
      if (j0 + 32 > T) {
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (j0 + 8 * n + at.column(e) >= T) s[n][e] = s[n][2 + e] = -INFINITY;
      }
      float top[2];
      bool higher = false;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float x = -INFINITY;
#pragma unroll
        for (int n = 0; n < 4; ++n) x = fmaxf(x, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
        top[h] = x * to_log2;
        higher = higher || top[h] > base[h] + 8;
      }
      if (__any_sync(all_lanes, higher)) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float x = fmaxf(base[h], top[h]);
          x = fmaxf(x, __shfl_xor_sync(all_lanes, x, 1));
          x = fmaxf(x, __shfl_xor_sync(all_lanes, x, 2));
          // While all scores are minus infinity, all weights are 2^(−∞ − 0) = 0.
          const float factor = fast_exp2(base[h] - (x == -INFINITY ? 0.f : x));
          base[h] = x, l[h] *= factor;
#pragma unroll
          for (int j = 0; j < W / 8; ++j) sum[j][2 * h] *= factor, sum[j][2 * h + 1] *= factor;
        }
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const unsigned bits = words[x0 / 32 * X::rows + at.row(h)] >> at.column(0);
        const float from = base[h] == -INFINITY ? 0.f : base[h];
        float weights = 0;
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const float p = fast_exp2(fmaf(s[n][2 * h + e], to_log2, -from));
            weights += p;
            s[n][2 * h + e] = bits & X::bit_of(n, e) ? p : 0.f;
          }
        l[h] += weights;
      }
      at.add_columns(sum, s, tile + X::tile_words, x0);
    }
  }

  // The lanes' parts of a sum; then the second half of the warps hands its queries over.
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    l[h] += __shfl_xor_sync(all_lanes, l[h], 1);
    l[h] += __shfl_xor_sync(all_lanes, l[h], 2);
  }
  constexpr int numbers = W / 8 * 4 + 4;
  static_assert(numbers * 32 * GROUPS <= 2 * X::step_words);
  float* hand = reinterpret_cast<float*>(steps_memory) + group * (numbers * 32) + at.lane;
  __syncthreads();  // nobody reads tiles any more
  if (half == 1) {
#pragma unroll
    for (int h = 0; h < 2; ++h) hand[2 * h * 32] = base[h], hand[(2 * h + 1) * 32] = l[h];
#pragma unroll
    for (int j = 0; j < W / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) hand[(4 + 4 * j + i) * 32] = sum[j][i];
  }
  __syncthreads();  // it is there
  if (half == 1) return;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float other = hand[2 * h * 32], other_l = hand[(2 * h + 1) * 32];
    const float top = fmaxf(base[h], other), from = top == -INFINITY ? 0.f : top;
    const float own_factor = fast_exp2(base[h] - from), factor = fast_exp2(other - from);
    const float all = l[h] * own_factor + other_l * factor;
#pragma unroll
    for (int j = 0; j < W / 8; ++j)
#pragma unroll
      for (int i = 2 * h; i < 2 * h + 2; ++i)
        sum[j][i] = sum[j][i] * own_factor + hand[(4 + 4 * j + i) * 32] * factor;
    const int row = block_row + 16 * group + at.row(h);
    if (row >= T) continue;
    at.store(o.of(batch_head) + row * o.row_stride, o.D, sum, h, keep.scale / all);
    if (at.t == 0) lse[ptrdiff_t{batch_head} * T + row] = top * ln_2 + logf(all);
  }
}

template <Precision P, int W>
void run(const Call& c) {
  unsigned* copies = c.copies ? c.copies : static_cast<unsigned*>(c.workspace);
  start_rounding<P, W, false>(c, copies, nullptr);
  const auto start = [&](auto groups) {
    constexpr int G = decltype(groups)::value;
    launch(early({"dense_forward_18", size_t(c.q.B * c.q.H) * size_t(tiles_of(c.q.T, 16 * G)),
                  64 * G, RoundedTiles<P, W>::shared_bytes}),
           c.stream, dense_forward_18<P, W, G>, copies, c.o, c.lse, c.keep,
           log2_e * c.scale());  // exp(scale·s) = 2^(to_log2·s)
  };
  // Blocks of 64 queries where there is a multiprocessor for each.
  if (c.q.B / c.parts * c.q.H * tiles_of(c.q.T, 64) <= device().multiprocessors)
    start(std::integral_constant<int, 4>{});
  else
    start(std::integral_constant<int, 8>{});
}

}  // namespace

const Rung dense_18_forward{18,
                            "dense: tensor cores",
                            Pass::forward,
                            is_dense,
                            true,
                            unsupported_on_tensor_cores,
                            [](const Call& c) { return c.copies ? 0 : 4 * copy_words(c); },
                            [](Pattern, const Call& c) {
                              for_precision_and_width(c, [&](auto precision, auto width) {
                                run<decltype(precision)::value, decltype(width)::value>(c);
                              });
                            },
                            {.dropout = true, .tensor_cores = true}};

}  // namespace focus::gpu
