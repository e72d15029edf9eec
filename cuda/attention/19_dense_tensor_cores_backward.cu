// Rung 19, dense backward on tensor cores, at 3xtf32, tf32 or bf16, with recomputed scores. No
// block waits for another's part of a sum:
//
//   a block of 128 keys       P = exp(S − lse), dS = P ∘ (dO Vᵀ ∘ keep − delta), all transposed:
//                             dV = (P ∘ keep)ᵀ dO, dK = scale · dSᵀ Q, over all queries
//   a block of 128 queries    the same dS: dQ = scale · dS K, over all keys
//
// That is seven products instead of five, but no sums in memory and none between blocks.
#include <cmath>

#include "cuda/attention/rounded.cuh"

namespace focus::gpu {

namespace {

template <Precision P, int W>
struct Backward {
  using X = Tiles18<P, W>;
  static constexpr int threads = 256, rows = 16 * threads / 32;
  static constexpr int stages = 2;
  // Two tiles; of queries their numbers and dropout's words, (4,64), a word for 32 keys.
  static constexpr int stats_at = 2 * X::tile_words, words_at = stats_at + 2 * X::rows;
  static constexpr int word_columns = rows / 32;
  static constexpr int stage_words = words_at + word_columns * X::rows;
  static_assert(X::rows * word_columns == threads);
  static constexpr size_t shared_bytes = shared_bytes_for(stages * stage_words);
};

struct Copies {
  const unsigned *q, *k, *v, *d_o;  // of a head
  const float* stats;
};

// dK and dV of 128 keys, 16 a warp.
template <Precision P, int W>
__device__ __forceinline__ void keys_19(const Copies& x, unsigned* tiles, int unit, int block,
                                        const Heads& dk, const Heads& dv, const KeepBits& keep,
                                        float scale) {
  using Y = Backward<P, W>;
  using X = Tiles18<P, W>;
  const X at;
  const int T = dk.T, warp = int(threadIdx.x) / 32, j0 = block * Y::rows, own = j0 + 16 * warp;
  const int steps = (T + X::rows - 1) / X::rows;
  const float to_log2 = scale * log2_e;
  const auto copy = [&](int step) {
    if (step < steps) {
      unsigned* to = tiles + step % Y::stages * Y::stage_words;
      X::template copy<Y::threads>(to, x.q + step * (X::rows * X::words));
      X::template copy<Y::threads>(to + X::tile_words, x.d_o + step * (X::rows * X::words));
      if (int(threadIdx.x) < X::rows / 2)
        __pipeline_memcpy_async(to + Y::stats_at + 4 * threadIdx.x,
                                x.stats + 2 * X::rows * step + 4 * threadIdx.x, 16);
      if (keep.words) {
        const int row = int(threadIdx.x) / Y::word_columns, query = step * X::rows + row;
        const int column = int(threadIdx.x) % Y::word_columns, word = j0 / 32 + column;
        copy_or_zero<1>(
            reinterpret_cast<float*>(to + Y::words_at + column * X::rows + row),
            reinterpret_cast<const float*>(
                keep.words + (size_t(unit) * size_t(T) + size_t(query)) * size_t(keep.per_row) +
                word),
            query < T && word < keep.per_row);
      }
    }
    __pipeline_commit();
  };
#pragma unroll
  for (int s = 0; s < Y::stages - 1; ++s) copy(s);
  typename X::A k[1][W / 16], v[1][W / 16];
#pragma unroll
  for (int c = 0; c < W / 16; ++c) {
    k[0][c] = at.load_a(x.k + own * X::words, c);
    v[0][c] = at.load_a(x.v + own * X::words, c);
  }
  float dk_sum[1][W / 8][4] = {}, dv_sum[1][W / 8][4] = {};
  const float keep_scale = keep.words ? keep.scale : 1.f;
  for (int step = 0; step < steps; ++step) {
    __pipeline_wait_prior(Y::stages - 2);
    __syncthreads();  // this tile is there for all, and nobody reads the one before
    copy(step + Y::stages - 1);
    if (own >= T) continue;
    const unsigned* tile = tiles + step % Y::stages * Y::stage_words;
    const float* stats = reinterpret_cast<const float*>(tile + Y::stats_at);
    const unsigned* words = tile + Y::words_at + warp / 2 * X::rows;
#pragma unroll 1
    for (int i0 = 0; i0 < X::rows; i0 += 32) {
      float p[1][4][4], ds[1][4][4];
      at.multiply_rows(p, k, tile, i0);
      at.multiply_rows(ds, v, tile + X::tile_words, i0);
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int query = i0 + 8 * n + at.column(e);
          const float2 stat = load2(stats + 2 * query);
          const unsigned bits = keep.words ? words[query] >> (warp % 2 * 16 + at.g) : all_lanes;
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            float& weight = p[0][n][2 * h + e];
            float& gradient = ds[0][n][2 * h + e];
            const bool kept = bits & (1u << (8 * h));
            const float w = fast_exp2(fmaf(weight, to_log2, -stat.x));
            gradient = w * fmaf(gradient, kept ? keep_scale : 0.f, -stat.y);
            weight = kept ? w : 0.f;
          }
        }
      at.add_columns(dv_sum, p, tile + X::tile_words, i0);
      at.add_columns(dk_sum, ds, tile, i0);
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = own + at.g + 8 * h;
    if (row >= T) continue;
    at.store(dk.of(unit) + row * dk.row_stride, dk.D, dk_sum[0], h, scale);
    at.store(dv.of(unit) + row * dv.row_stride, dv.D, dv_sum[0], h, keep_scale);
  }
}

// dQ of 128 queries, 16 a warp.
template <Precision P, int W>
__device__ __forceinline__ void queries_19(const Copies& x, unsigned* tiles, int unit, int block,
                                           const Heads& dq, const KeepBits& keep, float scale) {
  using Y = Backward<P, W>;
  using X = Tiles18<P, W>;
  const X at;
  const int T = dq.T, own = block * Y::rows + 16 * (int(threadIdx.x) / 32);
  const int steps = (T + X::rows - 1) / X::rows;
  const float to_log2 = scale * log2_e;
  const auto copy = [&](int step) {
    if (step < steps) {
      unsigned* to = tiles + step % Y::stages * Y::stage_words;
      X::template copy<Y::threads>(to, x.k + step * (X::rows * X::words));
      X::template copy<Y::threads>(to + X::tile_words, x.v + step * (X::rows * X::words));
    }
    __pipeline_commit();
  };
#pragma unroll
  for (int s = 0; s < Y::stages - 1; ++s) copy(s);
  typename X::A q[1][W / 16], d_o[1][W / 16];
#pragma unroll
  for (int c = 0; c < W / 16; ++c) {
    q[0][c] = at.load_a(x.q + own * X::words, c);
    d_o[0][c] = at.load_a(x.d_o + own * X::words, c);
  }
  float2 stats[2];
  const unsigned* words[2];
  unsigned bits[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = own + at.g + 8 * h;
    stats[h] = load2(x.stats + 2 * row);
    words[h] =
        keep.words + (size_t(unit) * size_t(T) + size_t(min(row, T - 1))) * size_t(keep.per_row);
  }
  const auto load_bits = [&](int j0) {
#pragma unroll
    for (int h = 0; h < 2; ++h)
      bits[h] = keep.words ? words[h][min(j0 / 32, keep.per_row - 1)] >> at.column(0) : all_lanes;
  };
  load_bits(0);
  float sum[1][W / 8][4] = {};
  const float keep_scale = keep.words ? keep.scale : 1.f;
  for (int step = 0; step < steps; ++step) {
    __pipeline_wait_prior(Y::stages - 2);
    __syncthreads();  // this tile is there for all, and nobody reads the one before
    copy(step + Y::stages - 1);
    if (own >= T) continue;
    const unsigned* tile = tiles + step % Y::stages * Y::stage_words;
#pragma unroll 1
    for (int x0 = 0; x0 < X::rows; x0 += 32) {
      const int j0 = step * X::rows + x0;
      if (j0 >= T) break;
      float p[1][4][4], ds[1][4][4];
      at.multiply_rows(p, q, tile, x0);
      at.multiply_rows(ds, d_o, tile + X::tile_words, x0);
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e)
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            float& gradient = ds[0][n][2 * h + e];
            const bool kept = bits[h] & (1u << (8 * n + (X::pairs ? e : 4 * e)));
            const float w = fast_exp2(fmaf(p[0][n][2 * h + e], to_log2, -stats[h].x));
            gradient = w * fmaf(gradient, kept ? keep_scale : 0.f, -stats[h].y);
          }
      if (j0 + 32 > T) {  // no keys: no weights, whatever the logarithm
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (j0 + 8 * n + at.column(e) >= T) ds[0][n][e] = ds[0][n][2 + e] = 0;
      }
      load_bits(j0 + 32);
      at.add_columns(sum, ds, tile, x0);
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = own + at.g + 8 * h;
    if (row < T) at.store(dq.of(unit) + row * dq.row_stride, dq.D, sum[0], h, scale);
  }
}

// The first half of the blocks take keys, the second, which have less to do, queries.
template <Precision P, int W>
__global__ void __launch_bounds__(Backward<P, W>::threads, P == Precision::bf16 ? 2 : 1)
    dense_backward_19(const unsigned* copies, const float* stats, Heads dq, Heads dk, Heads dv,
                      KeepBits keep, float scale) {
  using Y = Backward<P, W>;
  using X = Tiles18<P, W>;
  SharedMemory shared;
  unsigned* tiles = shared.array<unsigned>(Y::stages * Y::stage_words);
  const int T = dq.T, padded = padded_rows(T), blocks = padded / Y::rows, units = dq.B * dq.H;
  const bool of_keys = int(blockIdx.x) < blocks * units;
  const int unit = int(blockIdx.x) / blocks % units, block = int(blockIdx.x) % blocks;
  const ptrdiff_t head = ptrdiff_t{padded} * X::words, tensor = units * head;
  const unsigned* q = copies + unit * head;
  const Copies x{q, q + tensor, q + 2 * tensor, q + 3 * tensor,
                 stats + 2 * ptrdiff_t{unit} * padded};
  wait_for_previous();
  if (of_keys)
    keys_19<P, W>(x, tiles, unit, block, dk, dv, keep, scale);
  else
    queries_19<P, W>(x, tiles, unit, block, dq, keep, scale);
}

template <Precision P, int W>
void run(const Call& c) {
  using Y = Backward<P, W>;
  unsigned* copies = static_cast<unsigned*>(c.workspace);
  float* stats = reinterpret_cast<float*>(copies + words_of_copies<P, W>(c, 4));
  start_rounding<P, W>(c, {{c.q, c.k, c.v, c.d_o}, 4, c.o, c.lse}, copies, stats);
  launch(
      early({"dense_backward_19", 2 * size_t(c.q.B * c.q.H) * size_t(padded_rows(c.q.T) / Y::rows),
             Y::threads, Y::shared_bytes}),
      c.stream, dense_backward_19<P, W>, copies, stats, c.dq, c.dk, c.dv, c.keep,
      1 / std::sqrt(float(c.q.D)));
}

}  // namespace

const Rung dense_19_backward{
    19,
    "dense: tensor cores, scores recomputed",
    Pass::backward,
    is_dense,
    true,
    unsupported_on_tensor_cores,
    [](const Call& c) {
      size_t words = 0;
      for_precision_and_width(c, [&](auto precision, auto width) {
        words = words_of_copies<decltype(precision)::value, decltype(width)::value>(c, 4);
      });
      return 4 * (words + 2 * size_t(c.q.B) * size_t(c.q.H) * size_t(padded_rows(c.q.T)));
    },
    [](Pattern, const Call& c) {
      for_precision_and_width(c, [&](auto precision, auto width) {
        run<decltype(precision)::value, decltype(width)::value>(c);
      });
    }};

}  // namespace focus::gpu
