// Rung 19, dense backward on tensor cores, at 3xtf32, tf32 or bf16, with recomputed scores. No
// block waits for another's part of a sum:
//
//   a block of 128 keys       P = exp(S − lse), dS = P ∘ (dO Vᵀ ∘ keep − delta), all transposed:
//                             dV = (P ∘ keep)ᵀ dO, dK = scale · dSᵀ Q, over all queries
//   a block of 128 queries    the same dS: dQ = scale · dS K, over all keys
//
// That is seven products instead of five, but no T × T matrix or parts of dQ in memory. One kernel
// before rounds dO and makes delta = rowsum(dO ∘ O), in float32; q, k and v are the forward's
// copies.
//
// D a multiple of 4 from 16 to 64. Predicted at (25,1,600,64) in a training step, with dropout: 5 +
// 25 µs in bf16, by reads of shared memory, 2 for a product of 16 × 8 × 16, and 6 + 55 in tf32.
// Measured on an H100: 5.4 + 45 and 5.6 + 73 (rung 15: 48 + 101). Shared memory is busy 62 % of the
// time, without conflicts, tensor cores 40 to 50 %; two warps on a scheduler do not hide more. What
// did not help: two blocks with 128 registers a thread, which spill (6 µs more in bf16); two blocks
// of 64 rows (equal); warps with 32 rows that read their own factors from shared memory too (equal
// in bf16, 8 µs more in tf32); 16 queries at a time instead of 32 (2 µs more). Rounding q, k and v
// again instead of keeping the forward's copies took 4 µs (tf32: 7).
//
// At (16,16,2048,64), without dropout, on an H200: 3.6 ms in bf16 and 6.5 in tf32; tiles of 64 rows
// took 4.1 and 6.8 on an H100. (In another run, beside something else, these took 6.1 and 14.1.)
#include <cmath>

#include "cuda/fast/attention/rounded.cuh"

namespace focus::gpu {

namespace {

constexpr int threads = 256;  // a warp for each 16 of 128 rows

struct Copies {
  const unsigned *q, *k, *v, *d_o;  // of a head
  const float* stats;
};

// dK and dV of 128 keys.
template <class X>
__device__ __forceinline__ void keys_19(const Copies& x, unsigned* steps_memory, int batch_head,
                                        int j0, const Heads& dk, const Heads& dv,
                                        const KeepBits& keep, float scale) {
  const X at;
  const int T = dk.T, steps = (T + X::rows - 1) / X::rows;
  const int in_block = int(threadIdx.x) / 32 * 16, own = j0 + in_block;  // the warp's first key
  const float to_log2 = scale * log2_e, keep_scale = keep.words ? keep.scale : 1.f;
  const auto copy = [&](int step) {
    if (step < steps) {
      unsigned* to = steps_memory + step % 2 * X::step_words;
      X::template copy<threads>(to, x.q + step * (X::rows * X::words));
      X::template copy<threads>(to + X::tile_words, x.d_o + step * (X::rows * X::words));
      if (int(threadIdx.x) < X::rows / 2)
        __pipeline_memcpy_async(to + X::stats_at + 4 * threadIdx.x,
                                x.stats + 2 * X::rows * step + 4 * threadIdx.x, 16);
      X::template copy_bits<threads>(to, keep, batch_head, T, step * X::rows, j0);
    }
    __pipeline_commit();
  };
  copy(0);
  typename X::A k[X::width / 16], v[X::width / 16];
  at.load_a(k, x.k + own * X::words);
  at.load_a(v, x.v + own * X::words);
  float dk_sum[X::width / 8][4] = {}, dv_sum[X::width / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    __pipeline_wait_prior(0);
    __syncthreads();  // this step is there for all, and nobody reads the one before
    copy(step + 1);
    if (own >= T) continue;
    const unsigned* tile = steps_memory + step % 2 * X::step_words;
    const float* stats = reinterpret_cast<const float*>(tile + X::stats_at);
    const unsigned* words = tile + X::bits_at + in_block / 32 * X::rows;
#pragma unroll 1
    for (int i0 = 0; i0 < X::rows && step * X::rows + i0 < T; i0 += 32) {
      float p[4][4], ds[4][4];
      at.multiply_rows(p, k, tile, i0);
      at.multiply_rows(ds, v, tile + X::tile_words, i0);
      // P and dV first: dS can be made while tensor cores make dV.
      float kept[4][4];
      unsigned bits[4][2];
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int query = i0 + 8 * n + at.column(e);
          const float lse = stats[2 * query];
          bits[n][e] = words[query] >> (in_block % 32 + at.row(0));
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const int i = 2 * h + e;
            p[n][i] = fast_exp2(fmaf(p[n][i], to_log2, -lse));
            kept[n][i] = bits[n][e] & (1u << (8 * h)) ? p[n][i] : 0.f;
          }
        }
      at.add_columns(dv_sum, kept, tile + X::tile_words, i0);
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float delta = stats[2 * (i0 + 8 * n + at.column(e)) + 1];
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const int i = 2 * h + e;
            const float factor = bits[n][e] & (1u << (8 * h)) ? keep_scale : 0.f;
            ds[n][i] = p[n][i] * fmaf(ds[n][i], factor, -delta);
          }
        }
      at.add_columns(dk_sum, ds, tile, i0);
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = own + at.row(h);
    if (row >= T) continue;
    at.store(dk.of(batch_head) + row * dk.row_stride, dk.D, dk_sum, h, scale);
    at.store(dv.of(batch_head) + row * dv.row_stride, dv.D, dv_sum, h, keep_scale);
  }
}

// dQ of 128 queries.
template <class X>
__device__ __forceinline__ void queries_19(const Copies& x, unsigned* steps_memory, int batch_head,
                                           int i0, const Heads& dq, const KeepBits& keep,
                                           float scale) {
  const X at;
  const int T = dq.T, steps = (T + X::rows - 1) / X::rows;
  const int in_block = int(threadIdx.x) / 32 * 16, own = i0 + in_block;  // the warp's first query
  const float to_log2 = scale * log2_e, keep_scale = keep.words ? keep.scale : 1.f;
  const auto copy = [&](int step) {
    if (step < steps) {
      unsigned* to = steps_memory + step % 2 * X::step_words;
      X::template copy<threads>(to, x.k + step * (X::rows * X::words));
      X::template copy<threads>(to + X::tile_words, x.v + step * (X::rows * X::words));
      X::template copy_bits<threads>(to, keep, batch_head, T, i0, step * X::rows);
    }
    __pipeline_commit();
  };
  copy(0);
  typename X::A q[X::width / 16], d_o[X::width / 16];
  at.load_a(q, x.q + own * X::words);
  at.load_a(d_o, x.d_o + own * X::words);
  const float2 stats[2] = {load2(x.stats + 2 * (own + at.row(0))),
                           load2(x.stats + 2 * (own + at.row(1)))};
  float sum[X::width / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    __pipeline_wait_prior(0);
    __syncthreads();  // this step is there for all, and nobody reads the one before
    copy(step + 1);
    if (own >= T) continue;
    const unsigned* tile = steps_memory + step % 2 * X::step_words;
    const unsigned* words = tile + X::bits_at + in_block;
#pragma unroll 1
    for (int x0 = 0; x0 < X::rows && step * X::rows + x0 < T; x0 += 32) {
      float p[4][4], ds[4][4];
      at.multiply_rows(p, q, tile, x0);
      at.multiply_rows(ds, d_o, tile + X::tile_words, x0);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const unsigned bits = words[x0 / 32 * X::rows + at.row(h)] >> at.column(0);
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int i = 2 * h + e;
            const float factor = bits & X::bit_of(n, e) ? keep_scale : 0.f;
            ds[n][i] = fast_exp2(fmaf(p[n][i], to_log2, -stats[h].x)) *
                       fmaf(ds[n][i], factor, -stats[h].y);
          }
      }
      if (const int left = T - step * X::rows - x0; left < 32) {
        // No keys: no weights, whatever the logarithm.
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (8 * n + at.column(e) >= left) ds[n][e] = ds[n][2 + e] = 0;
      }
      at.add_columns(sum, ds, tile, x0);
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = own + at.row(h);
    if (row < T) at.store(dq.of(batch_head) + row * dq.row_stride, dq.D, sum, h, scale);
  }
}

// The first half of the blocks take keys, the second, which have less to do, queries.
template <Precision P, int W>
__global__ void __launch_bounds__(threads, 1)
    dense_backward_19(const unsigned* copies, const unsigned* d_o, const float* stats, Heads dq,
                      Heads dk, Heads dv, KeepBits keep, float scale) {
  using X = RoundedTiles<P, W>;
  SharedMemory shared;
  unsigned* steps_memory = shared.array<unsigned>(2 * X::step_words);
  const int T = dq.T, padded = padded_rows(T), batch_heads = dq.B * dq.H, blocks = padded / X::rows;
  const bool of_keys = int(blockIdx.x) < blocks * batch_heads;
  const int batch_head = int(blockIdx.x) / blocks % batch_heads,
            row0 = int(blockIdx.x) % blocks * X::rows;
  const ptrdiff_t head = ptrdiff_t{padded} * X::words, tensor = batch_heads * head;
  const unsigned* q = copies + batch_head * head;
  const Copies x{q, q + tensor, q + 2 * tensor, d_o + batch_head * head,
                 stats + 2 * ptrdiff_t{batch_head} * padded};
  X::template keep_all<threads>(steps_memory, keep);
  wait_for_previous();
  if (of_keys)
    keys_19<X>(x, steps_memory, batch_head, row0, dk, dv, keep, scale);
  else
    queries_19<X>(x, steps_memory, batch_head, row0, dq, keep, scale);
}

size_t stats_floats(const Call& c) {
  return 2 * size_t(c.q.B) * size_t(c.q.H) * size_t(padded_rows(c.q.T));
}

template <Precision P, int W>
void run(const Call& c) {
  unsigned *d_o = static_cast<unsigned*>(c.workspace), *copies = c.copies;
  float* stats = reinterpret_cast<float*>(d_o + words_of_copy(c));
  if (!copies) {  // the forward has left none
    copies = reinterpret_cast<unsigned*>(stats + stats_floats(c));
    start_rounding<P, W, false>(c, copies, nullptr);
  }
  start_rounding<P, W, true>(c, d_o, stats);
  using X = RoundedTiles<P, W>;
  launch(
      early({"dense_backward_19", 2 * size_t(c.q.B * c.q.H) * size_t(padded_rows(c.q.T) / X::rows),
             threads, X::shared_bytes}),
      c.stream, dense_backward_19<P, W>, copies, d_o, stats, c.dq, c.dk, c.dv, c.keep, c.scale());
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
    },
    {.dropout = true, .tensor_cores = true}};

}  // namespace focus::gpu
