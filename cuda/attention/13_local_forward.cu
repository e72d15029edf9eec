// Rung 13, banded and block attention with global tokens, forward: a row of W/4 lanes a token, so
// that a row is read in whole cache lines. A block does 64 neighbouring tokens; if the width is at
// most 16, the rows of K and V that they see are copied to shared memory once, instead of being
// asked for by every token that sees them. This is a copy with some arithmetic: at width 5 it reads
// q, k, v and writes o once. A global token has a block of its own, whose rows of lanes share the
// keys out and add up in a fixed order.
//
// D a multiple of 4 from 16 to 128. Predicted at (16,16,2048,64), width 5, at 80 % of 4.25 TB/s:
// 537 MB, 0.16 ms. Measured without the copies in shared memory: 0.20 ms; each row was then asked
// for 5 times while it was still on its way.
// Measured: 0.158 ms for the band, 0.167 ms for blocks.
#include <cmath>

#include "cuda/attention/local_rows.cuh"

namespace focus::gpu {

namespace {

constexpr int widest_staged = 16;

// The softmax of a query over runs of keys: running maximum (in powers of 2), sum, and output.
template <int W>
struct Softmax {
  float top = -INFINITY, sum = 0;
  float4 out = make_float4(0, 0, 0, 0);

  // U keys at once. q4: times scale·log2 e.
  template <int U, bool Drops>
  __device__ void add(const Channels& k, const Channels& v, float4 q4, const Run& run,
                      const Factors<Drops>& factor) {
    for (int n = 0; n < run.steps; n += U) {
      const int j = run.first + n * run.step;
      const float *k_j = k.at + j * k.stride, *v_j = v.at + j * v.stride;
      float4 k4[U], v4[U];
      float s[U];
#pragma unroll
      for (int u = 0; u < U; ++u) {
        const bool in = k.exist && j + u * run.step < run.end;
        k4[u] = in ? load4(k_j) : make_float4(0, 0, 0, 0);
        v4[u] = in ? load4(v_j) : make_float4(0, 0, 0, 0);
        k_j += run.step * k.stride, v_j += run.step * v.stride;
      }
      float largest = top;
#pragma unroll
      for (int u = 0; u < U; ++u) {
        s[u] = sum_of_lanes<W / 4>(dot(q4, k4[u]));
        if (j + u * run.step >= run.end) s[u] = -INFINITY;
        largest = fmaxf(largest, s[u]);
      }
      const float base = largest == -INFINITY ? 0.f : largest, shrink = fast_exp2(top - base);
      top = largest, sum *= shrink;
      out = scaled(shrink, out);
#pragma unroll
      for (int u = 0; u < U; ++u) {
        const float p = fast_exp2(s[u] - base);
        sum += p;
        const int at = (n + u) * run.step;
        add_scaled(out, p * factor(run.slot + at, run.first + at < run.end), v4[u]);
      }
    }
  }
};

__device__ void write_row(const Heads& o, float* lse, int T, int batch_head, int i, int d,
                          float4 out, float top, float sum) {
  set_channels(o, batch_head, i, d, scaled(1 / sum, out));
  if (d == 0) lse[ptrdiff_t{batch_head} * T + i] = (top + fast_log2(sum)) * ln_2;
}

// The rows that a block's tokens see: their own and those of bands or blocks that reach beyond.
template <int W>
__host__ __device__ constexpr int staged_rows(int width) {
  return Rows<W>::tokens + 2 * (width - 1);
}

// Ordinary tokens, a row of lanes each. Staged: through shared memory, for K and V.
template <int W, int U, bool Staged, bool Drops>
__global__ void __launch_bounds__(row_threads)
    local_fwd_13(Heads q, Heads k, Heads v, Heads o, float* lse, KeepBits keep, Window window,
                 float to_log2) {
  using X = Rows<W>;
  const int blocks = (window.n + X::tokens - 1) / X::tokens;
  const int batch_head = int(blockIdx.x) / blocks, d = X::channel();
  const int i0 = int(blockIdx.x) % blocks * X::tokens;
  const Channels q_rows(q, batch_head, d), k_rows(k, batch_head, d), v_rows(v, batch_head, d);
  Channels k_near = k_rows, v_near = v_rows;
  int near = 0;  // the first row of k_near and v_near
  if constexpr (Staged) {
    SharedMemory shared;
    const int most = staged_rows<W>(window.width);
    float* k_tile = shared.array<float>(most * W);
    float* v_tile = shared.array<float>(most * W);
    const Visible last = window.keys_of(min(i0 + X::tokens, window.n) - 1);
    near = window.keys_of(i0).begin;
    for (int row = X::own(); row < last.begin + last.own - near; row += X::number)
      if (k_rows.exist) {
        __pipeline_memcpy_async(k_tile + row * W + d, k_rows.at + (near + row) * k.row_stride, 16);
        __pipeline_memcpy_async(v_tile + row * W + d, v_rows.at + (near + row) * v.row_stride, 16);
      }
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();  // the rows are there for all
    k_near.at = k_tile + d, k_near.stride = W;
    v_near.at = v_tile + d, v_near.stride = W;
  }
  for (int n = 0; n < span; ++n) {
    const int i = i0 + X::own() + n * X::number;
    const int own = min(i, window.n - 1);
    const Visible keys = window.keys_of(own);
    const Factors<Drops> factor{keep, size_t(batch_head) * size_t(window.T) + size_t(own)};
    const float4 q4 = scaled(to_log2, q_rows.row_if(i, i < window.n));
    const int begin = keys.begin - near;
    Softmax<W> softmax;
    softmax.template add<U>(k_near, v_near, q4, {begin, begin + keys.own, 1, window.width}, factor);
    softmax.template add<4>(k_rows, v_rows, q4,
                            {window.n, window.T, 1, window.T - window.n, keys.own}, factor);
    // Rows beyond the end have only taken part in shuffles.
    if (i < window.n)
      write_row(o, lse, window.T, batch_head, i, d, softmax.out, softmax.top, softmax.sum);
  }
}

// Global tokens, a block each: each row of lanes takes every number-th key.
template <int W, bool Drops>
__global__ void __launch_bounds__(row_threads)
    local_fwd_global_13(Heads q, Heads k, Heads v, Heads o, float* lse, KeepBits keep,
                        Window window, float to_log2) {
  using X = Rows<W>;
  SharedMemory shared;
  float* outs = shared.array<float>(X::number * W);
  float* tops = shared.array<float>(X::number * 2);  // top, sum
  const int g = window.T - window.n, batch_head = int(blockIdx.x) / g;
  const int i = window.n + int(blockIdx.x) % g, d = X::channel(), row = X::own();
  Softmax<W> softmax;
  softmax.template add<4>(Channels(k, batch_head, d), Channels(v, batch_head, d),
                          scaled(to_log2, Channels(q, batch_head, d)[i]),
                          {row, window.T, X::number, (window.T + X::number - 1) / X::number, row},
                          Factors<Drops>{keep, size_t(batch_head) * size_t(window.T) + size_t(i)});
  store4(outs + row * W + d, softmax.out);
  if (d == 0) tops[row * 2] = softmax.top, tops[row * 2 + 1] = softmax.sum;
  __syncthreads();  // all parts are there
  if (row != 0) return;
  float top = -INFINITY, sum = 0;
  for (int r = 0; r < X::number; ++r) top = fmaxf(top, tops[r * 2]);
  const float base = top == -INFINITY ? 0.f : top;
  float4 out = make_float4(0, 0, 0, 0);
  for (int r = 0; r < X::number; ++r) {
    const float weight = fast_exp2(tops[r * 2] - base);
    sum += weight * tops[r * 2 + 1];
    add_scaled(out, weight, load4(outs + r * W + d));
  }
  write_row(o, lse, window.T, batch_head, i, d, out, top, sum);
}

template <int W, bool Drops, int U, bool Staged>
void run_ordinary(Pattern pattern, const Call& c) {
  const Window window = window_of(pattern, c);
  const int floats = Staged ? staged_rows<W>(window.width) * W : 0;
  launch({"local_fwd_13", size_t(c.q.B * c.q.H) * size_t(tiles_of(window.n, Rows<W>::tokens)),
          row_threads, shared_bytes_for(floats, floats)},
         c.stream, local_fwd_13<W, U, Staged, Drops>, c.q, c.k, c.v, c.o, c.lse, c.keep, window,
         log2_e * c.scale());
}

template <int W, bool Drops>
void run(Pattern pattern, const Call& c) {
  // Keys taken at once: 5 for the paper's usual width, else 4.
  const bool fits =
      too_little_shared_memory(shared_bytes_for(staged_rows<W>(widest_staged) * W * 2)).empty();
  if (c.kept == 5 && fits)
    run_ordinary<W, Drops, 5, true>(pattern, c);
  else if (c.kept <= widest_staged && fits)
    run_ordinary<W, Drops, 4, true>(pattern, c);
  else
    run_ordinary<W, Drops, 4, false>(pattern, c);
  using X = Rows<W>;
  launch({"local_fwd_global_13", size_t(c.q.B * c.q.H) * size_t(c.global_tokens), row_threads,
          shared_bytes_for(X::number * W, X::number * 2)},
         c.stream, local_fwd_global_13<W, Drops>, c.q, c.k, c.v, c.o, c.lse, c.keep,
         window_of(pattern, c), log2_e * c.scale());
}

}  // namespace

const Rung local_13_forward{13,
                            "local: a row of lanes a token",
                            Pass::forward,
                            is_local,
                            true,
                            unsupported_width,
                            no_workspace,
                            [](Pattern pattern, const Call& c) {
                              for_width(c.q.D, [&](auto width) {
                                constexpr int W = decltype(width)::value;
                                c.keep.words ? run<W, true>(pattern, c) : run<W, false>(pattern, c);
                              });
                            },
                            {.dropout = true}};

}  // namespace focus::gpu
