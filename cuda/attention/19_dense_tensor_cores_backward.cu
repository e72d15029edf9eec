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

// MT: tiles of 16 rows of a warp. NT: tiles of 8 of the other rows at once. KG: so many warps share
// the other rows of a tile. SHARED: own rows stay in shared memory, instead of registers.
template <Precision PRECISION, int WIDTH, int TILES, int GROUPS, int COLUMNS, bool FROM_SHARED,
          int BLOCKS, int ROWS = 128, int STAGES = 2>
struct Backward {
  static constexpr Precision P = PRECISION;
  static constexpr int W = WIDTH, MT = TILES, KG = GROUPS, NT = COLUMNS, blocks = BLOCKS;
  static constexpr bool SHARED = FROM_SHARED;
  using X = Tiles18<P, W>;
  static constexpr int rows = ROWS, row_groups = rows / (16 * MT), threads = 32 * row_groups * KG;
  static constexpr int stages = STAGES, part = X::rows / KG;  // of a tile, for a warp
  // Two tiles; of a tile of queries their numbers; dropout's words.
  static constexpr int stats_at = 2 * X::tile_words, words_at = stats_at + 2 * X::rows;
  static constexpr int own_columns = rows / 32, tile_columns = X::rows / 32;
  static constexpr int stage_words = words_at + own_columns * X::rows;
  static constexpr int own_words = SHARED ? 2 * rows * X::stride : 0;
  static constexpr int hand_words = KG > 1 ? (KG - 1) * row_groups* MT* W / 2 * 32 : 0;
  static_assert(hand_words <= own_words);
  static constexpr size_t shared_bytes = shared_bytes_for(stages * stage_words, own_words);
};

struct Copies {
  const unsigned *q, *k, *v, *d_o;  // of a head
  const float* stats;
};

// The two factors that a warp keeps, its own rows of two tensors.
template <class Y>
struct Own {
  using X = typename Y::X;
  typename X::A a[Y::SHARED ? 1 : 2][Y::MT][Y::W / 16];
  const unsigned* tile;  // the warp's rows

  // block: the rows of the block; row: the warp's first.
  __device__ __forceinline__ void load(const X& at, unsigned* memory, const unsigned* x,
                                       const unsigned* y, int row) {
    tile = memory + row * X::stride;
    if constexpr (Y::SHARED) {
      X::template copy<Y::threads, Y::rows>(memory, x);
      X::template copy<Y::threads, Y::rows>(memory + Y::rows * X::stride, y);
    } else {
#pragma unroll
      for (int m = 0; m < Y::MT; ++m)
#pragma unroll
        for (int c = 0; c < Y::W / 16; ++c) {
          a[0][m][c] = at.load_a(x + (row + 16 * m) * X::words, c);
          a[1][m][c] = at.load_a(y + (row + 16 * m) * X::words, c);
        }
    }
  }
  template <int WHICH>
  __device__ __forceinline__ typename X::A of(const X& at, int m, int c) const {
    if constexpr (Y::SHARED)
      return at.load_shared_a(tile + (WHICH * Y::rows + 16 * m) * X::stride, c);
    else
      return a[WHICH][m][c];
  }
};

// Several warps have parts of the same sums: the first gets them all, in order.
template <class Y>
__device__ __forceinline__ void gather(float (&sum)[Y::MT][Y::W / 8][4], float* hand, int row_group,
                                       int group, int lane) {
  if constexpr (Y::KG > 1) {
    constexpr int numbers = Y::MT * Y::W / 2;
    __syncthreads();  // nobody reads there any more
#pragma unroll
    for (int other = 1; other < Y::KG; ++other) {
      float* at = hand + ((other - 1) * Y::row_groups + row_group) * numbers * 32 + lane;
      if (group == other)
#pragma unroll
        for (int i = 0; i < numbers; ++i)
          at[i * 32] = sum[i / (Y::W / 2)][i / 4 % (Y::W / 8)][i % 4];
    }
    __syncthreads();  // they are there
    if (group == 0)
#pragma unroll
      for (int other = 1; other < Y::KG; ++other) {
        const float* at = hand + ((other - 1) * Y::row_groups + row_group) * numbers * 32 + lane;
#pragma unroll
        for (int i = 0; i < numbers; ++i)
          sum[i / (Y::W / 2)][i / 4 % (Y::W / 8)][i % 4] += at[i * 32];
      }
  }
}

// dK and dV of 128 keys.
template <class Y>
__device__ __forceinline__ void keys_19(const Copies& x, unsigned* tiles, unsigned* own_tiles,
                                        int unit, int block, const Heads& dk, const Heads& dv,
                                        const KeepBits& keep, float scale) {
  using X = typename Y::X;
  constexpr int MT = Y::MT, NT = Y::NT, W = Y::W;
  const X at;
  const int T = dk.T, warp = int(threadIdx.x) / 32, row_group = warp % Y::row_groups;
  const int group = warp / Y::row_groups;
  const int in_block = 16 * MT * row_group, j0 = block * Y::rows, own = j0 + in_block;
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
      if (keep.words)
        X::template copy_bits<Y::threads, X::rows, Y::own_columns>(to + Y::words_at, keep, unit, T,
                                                                   step * X::rows, j0 / 32);
    }
    __pipeline_commit();
  };
  if (!keep.words)
    for (int s = 0; s < Y::stages; ++s)
      X::template keep_all<Y::threads, X::rows, Y::own_columns>(tiles + s * Y::stage_words +
                                                                Y::words_at);
  Own<Y> kv;
  kv.load(at, own_tiles, x.k + j0 * X::words, x.v + j0 * X::words, in_block);
#pragma unroll
  for (int s = 0; s < Y::stages - 1; ++s) copy(s);
  float dk_sum[MT][W / 8][4] = {}, dv_sum[MT][W / 8][4] = {};
  const float keep_scale = keep.words ? keep.scale : 1.f;
  for (int step = 0; step < steps; ++step) {
    __pipeline_wait_prior(Y::stages - 2);
    __syncthreads();  // this tile is there for all, and nobody reads the one before
    copy(step + Y::stages - 1);
    if (own >= T) continue;
    const unsigned* tile = tiles + step % Y::stages * Y::stage_words;
    const float* stats = reinterpret_cast<const float*>(tile + Y::stats_at);
    const unsigned* words = tile + Y::words_at + in_block / 32 * X::rows;
#pragma unroll 1
    for (int i0 = group * Y::part; i0 < (group + 1) * Y::part; i0 += 8 * NT) {
      if (step * X::rows + i0 >= T) break;
      float p[MT][NT][4], ds[MT][NT][4];
      at.multiply_rows(
          p, [&](int m, int c) { return kv.template of<0>(at, m, c); }, tile, i0);
      at.multiply_rows(
          ds, [&](int m, int c) { return kv.template of<1>(at, m, c); }, tile + X::tile_words, i0);
      // P and dV first: dS is made while tensor cores make dV.
      float kept[MT][NT][4];
      unsigned bits[NT][2];
#pragma unroll
      for (int n = 0; n < NT; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int query = i0 + 8 * n + at.column(e);
          const float lse = stats[2 * query];
          bits[n][e] = words[query] >> (in_block % 32 + at.row(0));
#pragma unroll
          for (int m = 0; m < MT; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
              float& weight = p[m][n][2 * h + e];
              weight = fast_exp2(fmaf(weight, to_log2, -lse));
              kept[m][n][2 * h + e] = bits[n][e] & (1u << (16 * m + 8 * h)) ? weight : 0.f;
            }
        }
      at.add_columns(dv_sum, kept, tile + X::tile_words, i0);
#pragma unroll
      for (int n = 0; n < NT; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float delta = stats[2 * (i0 + 8 * n + at.column(e)) + 1];
#pragma unroll
          for (int m = 0; m < MT; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
              float& gradient = ds[m][n][2 * h + e];
              const float scaled = bits[n][e] & (1u << (16 * m + 8 * h)) ? keep_scale : 0.f;
              gradient = p[m][n][2 * h + e] * fmaf(gradient, scaled, -delta);
            }
        }
      at.add_columns(dk_sum, ds, tile, i0);
    }
  }
  float* hand = reinterpret_cast<float*>(own_tiles);
  gather<Y>(dk_sum, hand, row_group, group, at.lane);
  gather<Y>(dv_sum, hand, row_group, group, at.lane);
  if (group > 0) return;
#pragma unroll
  for (int m = 0; m < MT; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = own + 16 * m + at.row(h);
      if (row >= T) continue;
      at.store(dk.of(unit) + row * dk.row_stride, dk.D, dk_sum[m], h, scale);
      at.store(dv.of(unit) + row * dv.row_stride, dv.D, dv_sum[m], h, keep_scale);
    }
}

// dQ of 128 queries.
template <class Y>
__device__ __forceinline__ void queries_19(const Copies& x, unsigned* tiles, unsigned* own_tiles,
                                           int unit, int block, const Heads& dq,
                                           const KeepBits& keep, float scale) {
  using X = typename Y::X;
  constexpr int MT = Y::MT, W = Y::W;
  const X at;
  const int T = dq.T, warp = int(threadIdx.x) / 32, row_group = warp % Y::row_groups;
  const int group = warp / Y::row_groups;
  const int in_block = 16 * MT * row_group, own = block * Y::rows + in_block;
  const int steps = (T + X::rows - 1) / X::rows;
  const float to_log2 = scale * log2_e;
  const auto copy = [&](int step) {
    if (step < steps) {
      unsigned* to = tiles + step % Y::stages * Y::stage_words;
      X::template copy<Y::threads>(to, x.k + step * (X::rows * X::words));
      X::template copy<Y::threads>(to + X::tile_words, x.v + step * (X::rows * X::words));
      if (keep.words)
        X::template copy_bits<Y::threads, Y::rows, Y::tile_columns>(
            to + Y::words_at, keep, unit, T, block * Y::rows, step * Y::tile_columns);
    }
    __pipeline_commit();
  };
  if (!keep.words)
    for (int s = 0; s < Y::stages; ++s)
      X::template keep_all<Y::threads, Y::rows, Y::tile_columns>(tiles + s * Y::stage_words +
                                                                 Y::words_at);
  Own<Y> qo;
  qo.load(at, own_tiles, x.q + block * Y::rows * X::words, x.d_o + block * Y::rows * X::words,
          in_block);
#pragma unroll
  for (int s = 0; s < Y::stages - 1; ++s) copy(s);
  float2 stats[MT][2];
#pragma unroll
  for (int m = 0; m < MT; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) stats[m][h] = load2(x.stats + 2 * (own + 16 * m + at.row(h)));
  float sum[MT][W / 8][4] = {};
  const float keep_scale = keep.words ? keep.scale : 1.f;
  for (int step = 0; step < steps; ++step) {
    __pipeline_wait_prior(Y::stages - 2);
    __syncthreads();  // this tile is there for all, and nobody reads the one before
    copy(step + Y::stages - 1);
    if (own >= T) continue;
    const unsigned* tile = tiles + step % Y::stages * Y::stage_words;
#pragma unroll 1
    for (int x0 = group * Y::part; x0 < (group + 1) * Y::part; x0 += 32) {
      const int j0 = step * X::rows + x0;
      if (j0 >= T) break;
      unsigned bits[MT][2];
#pragma unroll
      for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h)
          bits[m][h] =
              tile[Y::words_at + x0 / 32 * Y::rows + in_block + 16 * m + at.row(h)] >> at.column(0);
      float p[MT][4][4], ds[MT][4][4];
      at.multiply_rows(
          p, [&](int m, int c) { return qo.template of<0>(at, m, c); }, tile, x0);
      at.multiply_rows(
          ds, [&](int m, int c) { return qo.template of<1>(at, m, c); }, tile + X::tile_words, x0);
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e)
#pragma unroll
          for (int m = 0; m < MT; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
              float& gradient = ds[m][n][2 * h + e];
              const bool kept = bits[m][h] & (1u << (8 * n + (X::pairs ? e : 4 * e)));
              const float w = fast_exp2(fmaf(p[m][n][2 * h + e], to_log2, -stats[m][h].x));
              gradient = w * fmaf(gradient, kept ? keep_scale : 0.f, -stats[m][h].y);
            }
      if (j0 + 32 > T) {  // no keys: no weights, whatever the logarithm
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (j0 + 8 * n + at.column(e) >= T)
#pragma unroll
              for (int m = 0; m < MT; ++m) ds[m][n][e] = ds[m][n][2 + e] = 0;
      }
      at.add_columns(sum, ds, tile, x0);
    }
  }
  gather<Y>(sum, reinterpret_cast<float*>(own_tiles), row_group, group, at.lane);
  if (group > 0) return;
#pragma unroll
  for (int m = 0; m < MT; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = own + 16 * m + at.row(h);
      if (row < T) at.store(dq.of(unit) + row * dq.row_stride, dq.D, sum[m], h, scale);
    }
}

// The first half of the blocks take keys, the second, which have less to do, queries.
template <class Y>
__global__ void __launch_bounds__(Y::threads, Y::blocks)
    dense_backward_19(const unsigned* copies, const unsigned* d_o, const float* stats, Heads dq,
                      Heads dk, Heads dv, KeepBits keep, float scale) {
  using X = typename Y::X;
  SharedMemory shared;
  unsigned* tiles = shared.array<unsigned>(Y::stages * Y::stage_words);
  unsigned* own_tiles = shared.array<unsigned>(Y::own_words);
  const int T = dq.T, padded = padded_rows(T), units = dq.B * dq.H;
  const int blocks = (T + Y::rows - 1) / Y::rows;
  const bool of_keys = int(blockIdx.x) < blocks * units;
  const int unit = int(blockIdx.x) / blocks % units, block = int(blockIdx.x) % blocks;
  const ptrdiff_t head = ptrdiff_t{padded} * X::words, tensor = units * head;
  const unsigned* q = copies + unit * head;
  const Copies x{q, q + tensor, q + 2 * tensor, d_o + unit * head,
                 stats + 2 * ptrdiff_t{unit} * padded};
  wait_for_previous();
  if (of_keys)
    keys_19<Y>(x, tiles, own_tiles, unit, block, dk, dv, keep, scale);
  else
    queries_19<Y>(x, tiles, own_tiles, unit, block, dq, keep, scale);
}

size_t stats_floats(const Call& c) {
  return 2 * size_t(c.q.B) * size_t(c.q.H) * size_t(padded_rows(c.q.T));
}

template <Precision P, int W>
void run(const Call& c) {
  unsigned *d_o = static_cast<unsigned*>(c.workspace), *copies = c.copies;
  float* stats = reinterpret_cast<float*>(d_o + words_of_copy<P, W>(c));
  if (!copies) {  // the forward kept none
    copies = reinterpret_cast<unsigned*>(stats + stats_floats(c));
    start_rounding<P, W, false>(c, copies, nullptr);
  }
  start_rounding<P, W, true>(c, d_o, stats);
  const auto start = [&](auto of) {
    using Y = decltype(of);
    launch(early({"dense_backward_19", 2 * size_t(c.q.B * c.q.H) * size_t(tiles_of(c.q.T, Y::rows)),
                  Y::threads, Y::shared_bytes}),
           c.stream, dense_backward_19<Y>, copies, d_o, stats, c.dq, c.dk, c.dv, c.keep,
           1 / std::sqrt(float(c.q.D)));
  };
  const int v = getenv("V19") ? atoi(getenv("V19")) : 0;
  constexpr bool bf16 = P == Precision::bf16;
  if (v == 0)
    start(Backward<P, W, 1, 1, 4, false, 1>{});
  else if (v == 1)
    start(Backward < P, W, 1, 1, bf16 ? 4 : 2, false, bf16 ? 2 : 1, bf16 ? 64 : 128 > {});
  else if (v == 2)
    start(Backward<P, W, 2, 2, 4, true, 1>{});
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
      return 4 * (words_of_copy(c) + stats_floats(c) + (c.copies ? 0 : copy_words(c)));
    },
    [](Pattern, const Call& c) {
      for_precision_and_width(c, [&](auto precision, auto width) {
        run<decltype(precision)::value, decltype(width)::value>(c);
      });
    }};

}  // namespace focus::gpu
