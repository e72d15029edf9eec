// Rung 18, dense forward on tensor cores, at 3xtf32, tf32 or bf16: scores, softmax and output in
// one kernel, with no T × T matrix in memory (FlashAttention-2, Dao 2023, algorithm 1).
#include <cmath>

#include "cuda/attention/rounded.cuh"
#include "cuda/device/device.h"

namespace focus::gpu {

std::string unsupported_on_tensor_cores(const Call& c) {
  if (c.precision == Precision::fp32) return "for --precision 3xtf32, tf32 and bf16";
  if (c.q.D > 64) return str("width ", c.q.D, ", more than 64");
  if (const std::string why = unsupported_width(c); !why.empty()) return why;
  return tensor_core_problem();
}

size_t copy_words(const Call& c) {
  return 3 * words_of_copy(c);
}

namespace {

// A warp takes 16 · MT queries and every second 32 keys.
template <Precision P, int W, int MT, int RG, int BLOCKS, int KG>
struct Forward {
  using X = Tiles18<P, W>;
  static constexpr int row_groups = RG, key_groups = KG, threads = 32 * row_groups * key_groups;
  static constexpr int rows = 16 * MT * row_groups;  // of a block
  static constexpr int stages = 2, bit_columns = X::rows / 32;
  // Two tiles; dropout's words of the queries.
  static constexpr int stage_words = 2 * X::tile_words + bit_columns * rows;
  // What the second half of the warps hands over at the end, in place of the tiles.
  static constexpr int numbers = MT * (W / 8 * 4 + 4);
  static_assert(numbers * 32 * row_groups <= stages * stage_words);
  static constexpr size_t shared_bytes = shared_bytes_for(stages * stage_words);
};

template <Precision P, int W, int MT, int RG, int BLOCKS, int KG>
__global__ void __launch_bounds__(32 * RG * KG, BLOCKS)
    dense_forward_18(const unsigned* copies, Heads o, float* lse, KeepBits keep, float to_log2) {
  using Y = Forward<P, W, MT, RG, BLOCKS, KG>;
  using X = Tiles18<P, W>;
  SharedMemory shared;
  unsigned* tiles = shared.array<unsigned>(Y::stages * Y::stage_words);
  const X at;
  const int warp = int(threadIdx.x) / 32, row_group = warp % Y::row_groups,
            key_group = warp / Y::row_groups;
  const int T = o.T, padded = padded_rows(T), blocks = (T + Y::rows - 1) / Y::rows;
  const int unit = int(blockIdx.x) / blocks;
  const int block_row = int(blockIdx.x) % blocks * Y::rows, in_block = row_group * 16 * MT;
  const int row0 = block_row + in_block;  // of the warp
  const ptrdiff_t tensor = ptrdiff_t{o.B} * o.H * padded * X::words;
  const unsigned* q = copies + ptrdiff_t{unit} * padded * X::words;
  const unsigned *k = q + tensor, *v = k + tensor;
  const int steps = (T + X::rows - 1) / X::rows;
  const auto copy = [&](int step) {
    if (step < steps) {
      unsigned* to = tiles + step % Y::stages * Y::stage_words;
      X::template copy<Y::threads>(to, k + step * (X::rows * X::words));
      X::template copy<Y::threads>(to + X::tile_words, v + step * (X::rows * X::words));
      if (keep.words)
        X::template copy_bits<Y::threads, Y::rows, Y::bit_columns>(
            to + 2 * X::tile_words, keep, unit, T, block_row, step * Y::bit_columns);
    }
    __pipeline_commit();
  };

  if (!keep.words)
    for (int s = 0; s < Y::stages; ++s)
      X::template keep_all<Y::threads, Y::rows, Y::bit_columns>(tiles + s * Y::stage_words +
                                                                2 * X::tile_words);
  wait_for_previous();
#pragma unroll
  for (int s = 0; s < Y::stages - 1; ++s) copy(s);
  typename X::A a[MT][W / 16];
#pragma unroll
  for (int m = 0; m < MT; ++m)
#pragma unroll
    for (int c = 0; c < W / 16; ++c) a[m][c] = at.load_a(q + (row0 + 16 * m) * X::words, c);

  // Of the queries g and g + 8 of each tile: what scores are seen from, in powers of 2, and the
  // lane's part of the weights' sum. As long as no score exceeds it by more than 2^8, it stays.
  float base[MT][2], l[MT][2], sum[MT][W / 8][4];
#pragma unroll
  for (int m = 0; m < MT; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) base[m][h] = -INFINITY, l[m][h] = 0;
#pragma unroll
    for (int j = 0; j < W / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[m][j][i] = 0;
  }
  for (int step = 0; step < steps; ++step) {
    __pipeline_wait_prior(Y::stages - 2);
    __syncthreads();  // this tile is there for all, and nobody reads the one before
    copy(step + Y::stages - 1);
    const unsigned* tile = tiles + step % Y::stages * Y::stage_words;
#pragma unroll 1
    for (int x0 = 32 * key_group; x0 < X::rows; x0 += 32 * KG) {
      const int j0 = step * X::rows + x0;
      if (j0 >= T) break;
      float s[MT][4][4];
      at.multiply_rows(
          s, [&](int m, int c) { return a[m][c]; }, tile, x0);
      if (j0 + 32 > T) {
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (j0 + 8 * n + at.column(e) >= T)
#pragma unroll
              for (int m = 0; m < MT; ++m) s[m][n][e] = s[m][n][2 + e] = -INFINITY;
      }
      unsigned bits[MT][2];
#pragma unroll
      for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h)
          bits[m][h] =
              tile[2 * X::tile_words + x0 / 32 * Y::rows + in_block + 16 * m + at.row(h)] >>
              at.column(0);
      float top[MT][2];
      bool higher = false;
#pragma unroll
      for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float x = -INFINITY;
#pragma unroll
          for (int n = 0; n < 4; ++n) x = fmaxf(x, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
          top[m][h] = x * to_log2;
          higher = higher || top[m][h] > base[m][h] + 8;
        }
      if (__any_sync(all_lanes, higher)) {
#pragma unroll
        for (int m = 0; m < MT; ++m)
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            float x = fmaxf(base[m][h], top[m][h]);
            x = fmaxf(x, __shfl_xor_sync(all_lanes, x, 1));
            x = fmaxf(x, __shfl_xor_sync(all_lanes, x, 2));
            // While all scores are minus infinity, all weights are 2^(−∞ − 0) = 0.
            const float factor = fast_exp2(base[m][h] - (x == -INFINITY ? 0.f : x));
            base[m][h] = x, l[m][h] *= factor;
#pragma unroll
            for (int j = 0; j < W / 8; ++j)
              sum[m][j][2 * h] *= factor, sum[m][j][2 * h + 1] *= factor;
          }
      }
#pragma unroll
      for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const float from = base[m][h] == -INFINITY ? 0.f : base[m][h];
          float weights = 0;
#pragma unroll
          for (int n = 0; n < 4; ++n)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              const float p = fast_exp2(fmaf(s[m][n][2 * h + e], to_log2, -from));
              weights += p;
              const unsigned bit = 1u << (8 * n + (X::pairs ? e : 4 * e));
              s[m][n][2 * h + e] = (bits[m][h] & bit) ? p : 0.f;
            }
          l[m][h] += weights;
        }
      at.add_columns(sum, s, tile + X::tile_words, x0);
    }
  }

  // Lanes' parts of a sum; then the second half of the warps hands its queries over.
#pragma unroll
  for (int m = 0; m < MT; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      l[m][h] += __shfl_xor_sync(all_lanes, l[m][h], 1);
      l[m][h] += __shfl_xor_sync(all_lanes, l[m][h], 2);
    }
  if constexpr (KG == 2) {
    __syncthreads();  // nobody reads tiles any more
    float* hand = reinterpret_cast<float*>(tiles) + row_group * (Y::numbers * 32) + at.lane;
    if (key_group == 1) {
#pragma unroll
      for (int m = 0; m < MT; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          hand[(4 * m + 2 * h) * 32] = base[m][h];
          hand[(4 * m + 2 * h + 1) * 32] = l[m][h];
        }
#pragma unroll
        for (int j = 0; j < W / 8; ++j)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            hand[(4 * MT + (m * (W / 8) + j) * 4 + i) * 32] = sum[m][j][i];
      }
    }
    __syncthreads();  // it is there
    if (key_group == 1) return;
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float other = hand[(4 * m + 2 * h) * 32], other_l = hand[(4 * m + 2 * h + 1) * 32];
        const float top = fmaxf(base[m][h], other), from = top == -INFINITY ? 0.f : top;
        const float own_factor = fast_exp2(base[m][h] - from), factor = fast_exp2(other - from);
        base[m][h] = top, l[m][h] = l[m][h] * own_factor + other_l * factor;
#pragma unroll
        for (int j = 0; j < W / 8; ++j)
#pragma unroll
          for (int i = 2 * h; i < 2 * h + 2; ++i)
            sum[m][j][i] = sum[m][j][i] * own_factor +
                           hand[(4 * MT + (m * (W / 8) + j) * 4 + i) * 32] * factor;
      }
  }
#pragma unroll
  for (int m = 0; m < MT; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row0 + 16 * m + at.row(h);
      if (row >= T) continue;
      at.store(o.of(unit) + row * o.row_stride, o.D, sum[m], h, keep.scale / l[m][h]);
      if (at.t == 0) lse[ptrdiff_t{unit} * T + row] = base[m][h] * ln_2 + logf(l[m][h]);
    }
}

template <Precision P, int W>
void run(const Call& c) {
  unsigned* copies = c.copies ? c.copies : static_cast<unsigned*>(c.workspace);
  start_rounding<P, W, false>(c, copies, nullptr);
  const float to_log2 = log2_e / std::sqrt(float(c.q.D));  // exp(scale·s) = 2^(to_log2·s)
  const auto start = [&](auto mt, auto rg, auto bl, auto kg) {
    constexpr int MT = decltype(mt)::value, RG = decltype(rg)::value, BL = decltype(bl)::value;
    constexpr int KG = decltype(kg)::value;
    using Y = Forward<P, W, MT, RG, BL, KG>;
    launch(early({"dense_forward_18", size_t(c.q.B * c.q.H) * size_t(tiles_of(c.q.T, Y::rows)),
                  Y::threads, Y::shared_bytes}),
           c.stream, dense_forward_18<P, W, MT, RG, BL, KG>, copies, c.o, c.lse, c.keep, to_log2);
  };
  // Blocks of 64 queries where those of 128 would leave multiprocessors without.
  const int rows = c.q.B / c.parts * c.q.H * tiles_of(c.q.T, 64);
  using one = std::integral_constant<int, 1>;
  using two = std::integral_constant<int, 2>;
  using four = std::integral_constant<int, 4>;
  using eight = std::integral_constant<int, 8>;
  using three = std::integral_constant<int, 3>;
  const int v = getenv("V18") ? atoi(getenv("V18")) : 1;
  if (rows <= device().multiprocessors || v == 2)
    start(one{}, four{}, two{}, two{});
  else if (v == 0)
    start(two{}, four{}, one{}, two{});
  else if (v == 1)
    start(one{}, eight{}, one{}, two{});
  else if (v == 3)
    start(one{}, four{}, three{}, one{});
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
                            }};

}  // namespace focus::gpu
