// Rung 13, banded and block attention with global tokens: a row of W/4 lanes a token, so that a row
// is read in whole cache lines; neighbouring tokens lie in one block and find each other's rows in
// the first-level cache. This is a copy with some arithmetic: at width 5 the forward reads q, k, v
// and writes o once, the backward reads q, k, v, o, dO and writes dq, dk, dv. A global token has a
// block of its own, whose rows of lanes share its partners out and add up in a fixed order.
//
// D a multiple of 4 from 16 to 128. Predicted at (16,16,2048,64), width 5, at 80 % of 4.25 TB/s:
// forward 537 MB, 0.16 ms; backward 1.07 GB, 0.32 ms.
#include <cmath>

#include "cuda/attention/local.cuh"
#include "cuda/attention/row_lanes.cuh"
#include "cuda/attention/rungs.h"
#include "cuda/device/launch.h"

namespace focus::gpu {

namespace {

constexpr int threads = 256;

template <int W>
struct Rows {
  static constexpr int lanes = W / 4, number = threads / lanes;  // of a block
  static __device__ int own() { return int(threadIdx.x) / lanes; }
  static __device__ int channel() { return int(threadIdx.x) % lanes * 4; }
};

// The softmax of a query over slots first, first+step, … of its keys: running maximum (in powers
// of 2), sum, and output. All lanes of a warp make the same number of steps: `steps` of U slots.
template <int W, int U>
struct Softmax {
  float top = -INFINITY, sum = 0;
  float4 out = make_float4(0, 0, 0, 0);

  __device__ void add(const Heads& k, const Heads& v, int unit, float4 q4, int d,
                      const Visible& keys, int first, int step, int steps, float to_log2) {
    const float *k_head = k.of(unit), *v_head = v.of(unit);
    for (int n = 0; n < steps; ++n, first += U * step) {
      float4 k4[U], v4[U];
      float s[U];
#pragma unroll
      for (int u = 0; u < U; ++u) {
        const int slot = first + u * step, j = keys.token(min(slot, keys.count - 1));
        k4[u] = channels(k, k_head, j, d), v4[u] = channels(v, v_head, j, d);
      }
      float largest = top;
#pragma unroll
      for (int u = 0; u < U; ++u) {
        s[u] = sum_of_lanes<W / 4>(dot(q4, k4[u])) * to_log2;
        if (first + u * step >= keys.count) s[u] = -INFINITY;
        largest = fmaxf(largest, s[u]);
      }
      const float base = largest == -INFINITY ? 0.f : largest, shrink = fast_exp2(top - base);
      top = largest, sum *= shrink;
      out = make_float4(out.x * shrink, out.y * shrink, out.z * shrink, out.w * shrink);
#pragma unroll
      for (int u = 0; u < U; ++u) {
        if (first + u * step >= keys.count) continue;
        const float p = fast_exp2(s[u] - base);
        sum += p;
        add_scaled(out, p, v4[u]);
      }
    }
  }
};

__device__ int steps_for(int slots, int U) {
  return (slots + U - 1) / U;
}

// Ordinary tokens, a row of lanes each.
template <int W, int U>
__global__ void __launch_bounds__(threads)
    local_fwd_13(Heads q, Heads k, Heads v, Heads o, float* lse, Window window, float to_log2) {
  using X = Rows<W>;
  const int blocks = (window.n + X::number - 1) / X::number;
  const int unit = int(blockIdx.x) / blocks, d = X::channel();
  const int i = int(blockIdx.x) % blocks * X::number + X::own();
  const int own = min(i, window.n - 1);  // rows beyond the end take part in shuffles
  const Visible keys = window.keys_of(own);
  Softmax<W, U> softmax;
  softmax.add(k, v, unit, channels(q, q.of(unit), own, d), d, keys, 0, 1,
              steps_for(window.width + window.T - window.n, U), to_log2);
  if (i >= window.n) return;
  const float4 x = softmax.out;
  const float l = softmax.sum;
  set_channels(o, unit, i, d, make_float4(x.x / l, x.y / l, x.z / l, x.w / l));
  if (d == 0) lse[ptrdiff_t{unit} * window.T + i] = softmax.top * ln_2 + logf(l);
}

// Global tokens, a block each: each row of lanes takes every number-th key.
template <int W>
__global__ void __launch_bounds__(threads)
    local_fwd_global_13(Heads q, Heads k, Heads v, Heads o, float* lse, Window window,
                        float to_log2) {
  using X = Rows<W>;
  SharedMemory shared;
  float* outs = shared.array<float>(X::number * W);
  float* tops = shared.array<float>(X::number * 2);  // top, sum
  const int g = window.T - window.n, unit = int(blockIdx.x) / g;
  const int i = window.n + int(blockIdx.x) % g, d = X::channel(), row = X::own();
  Softmax<W, 4> softmax;
  softmax.add(k, v, unit, channels(q, q.of(unit), i, d), d, window.keys_of(i), row, X::number,
              steps_for(window.T, 4 * X::number), to_log2);
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
  set_channels(o, unit, i, d, make_float4(out.x / sum, out.y / sum, out.z / sum, out.w / sum));
  if (d == 0) lse[ptrdiff_t{unit} * window.T + i] = top * ln_2 + logf(sum);
}

struct Inputs {
  Heads q, k, v, o, d_o;
  const float* lse;
  Window window;
  float scale;
};

// The gradients of token i over slots first, first+step, …: as a query, with the keys it sees; as a
// key, with the queries that see it.
template <int W>
struct Gradients {
  float4 dq = make_float4(0, 0, 0, 0), dk = dq, dv = dq;

  __device__ void add(const Inputs& x, int unit, int i, int d, int first, int step) {
    const float *q_head = x.q.of(unit), *k_head = x.k.of(unit), *v_head = x.v.of(unit),
                *o_head = x.o.of(unit), *g_head = x.d_o.of(unit),
                *lse = x.lse + ptrdiff_t{unit} * x.window.T;
    const float4 q4 = channels(x.q, q_head, i, d), k4 = channels(x.k, k_head, i, d),
                 v4 = channels(x.v, v_head, i, d), g4 = channels(x.d_o, g_head, i, d);
    const float delta = sum_of_lanes<W / 4>(dot(g4, channels(x.o, o_head, i, d)));
    const float to_log2 = x.scale * log2_e, own_lse = lse[i] * log2_e;
    const Visible keys = x.window.keys_of(i), queries = x.window.queries_of(i);
    for (int slot = first; __any_sync(all_lanes, slot < keys.count); slot += step) {
      const int j = keys.token(min(slot, keys.count - 1));
      const float4 kj = channels(x.k, k_head, j, d);
      const float s = sum_of_lanes<W / 4>(dot(q4, kj));
      const float dp = sum_of_lanes<W / 4>(dot(g4, channels(x.v, v_head, j, d)));
      const float p = fast_exp2(fmaf(s, to_log2, -own_lse));
      if (slot < keys.count) add_scaled(dq, x.scale * p * (dp - delta), kj);
    }
    for (int slot = first; __any_sync(all_lanes, slot < queries.count); slot += step) {
      const int l = queries.token(min(slot, queries.count - 1));
      const float4 ql = channels(x.q, q_head, l, d), gl = channels(x.d_o, g_head, l, d);
      const float s = sum_of_lanes<W / 4>(dot(ql, k4));
      // dP − delta is the product of dO with V[i] − O[l].
      const float4 ol = channels(x.o, o_head, l, d);
      const float dp = sum_of_lanes<W / 4>(
          dot(gl, make_float4(v4.x - ol.x, v4.y - ol.y, v4.z - ol.z, v4.w - ol.w)));
      const float p = fast_exp2(fmaf(s, to_log2, -lse[l] * log2_e));
      if (slot >= queries.count) continue;
      add_scaled(dk, x.scale * p * dp, ql);
      add_scaled(dv, p, gl);
    }
  }
};

template <int W>
__global__ void __launch_bounds__(threads) local_bwd_13(Inputs x, Heads dq, Heads dk, Heads dv) {
  using X = Rows<W>;
  const int blocks = (x.window.n + X::number - 1) / X::number;
  const int unit = int(blockIdx.x) / blocks, d = X::channel();
  const int i = int(blockIdx.x) % blocks * X::number + X::own();
  Gradients<W> sum;
  sum.add(x, unit, min(i, x.window.n - 1), d, 0, 1);
  if (i >= x.window.n) return;
  set_channels(dq, unit, i, d, sum.dq);
  set_channels(dk, unit, i, d, sum.dk);
  set_channels(dv, unit, i, d, sum.dv);
}

template <int W>
__global__ void __launch_bounds__(threads)
    local_bwd_global_13(Inputs x, Heads dq, Heads dk, Heads dv) {
  using X = Rows<W>;
  SharedMemory shared;
  float* parts = shared.array<float>(X::number * 3 * W);
  const int g = x.window.T - x.window.n, unit = int(blockIdx.x) / g;
  const int i = x.window.n + int(blockIdx.x) % g, d = X::channel(), row = X::own();
  Gradients<W> sum;
  sum.add(x, unit, i, d, row, X::number);
  store4(parts + row * 3 * W + d, sum.dq);
  store4(parts + (row * 3 + 1) * W + d, sum.dk);
  store4(parts + (row * 3 + 2) * W + d, sum.dv);
  __syncthreads();  // all parts are there
  if (row != 0) return;
  for (int r = 1; r < X::number; ++r) {
    add_scaled(sum.dq, 1, load4(parts + r * 3 * W + d));
    add_scaled(sum.dk, 1, load4(parts + (r * 3 + 1) * W + d));
    add_scaled(sum.dv, 1, load4(parts + (r * 3 + 2) * W + d));
  }
  set_channels(dq, unit, i, d, sum.dq);
  set_channels(dk, unit, i, d, sum.dk);
  set_channels(dv, unit, i, d, sum.dv);
}

template <int W, int U>
void run_forward(Pattern pattern, const Call& c) {
  using X = Rows<W>;
  const Window window = window_of(pattern, c);
  const size_t units = size_t(c.q.B) * size_t(c.q.H);
  const float to_log2 = log2_e / std::sqrt(float(c.q.D));
  launch({"local_fwd_13", units * size_t(tiles_of(window.n, X::number)), threads}, c.stream,
         local_fwd_13<W, U>, c.q, c.k, c.v, c.o, c.lse, window, to_log2);
  launch({"local_fwd_global_13", units * size_t(c.global_tokens), threads,
          shared_bytes_for(X::number * W, X::number * 2)},
         c.stream, local_fwd_global_13<W>, c.q, c.k, c.v, c.o, c.lse, window, to_log2);
}

template <int W>
void run_backward(Pattern pattern, const Call& c) {
  using X = Rows<W>;
  const Inputs x{
      c.q, c.k, c.v, c.o, c.d_o, c.lse, window_of(pattern, c), 1 / std::sqrt(float(c.q.D))};
  const size_t units = size_t(c.q.B) * size_t(c.q.H);
  launch({"local_bwd_13", units * size_t(tiles_of(x.window.n, X::number)), threads}, c.stream,
         local_bwd_13<W>, x, c.dq, c.dk, c.dv);
  launch({"local_bwd_global_13", units * size_t(c.global_tokens), threads,
          shared_bytes_for(X::number * 3 * W)},
         c.stream, local_bwd_global_13<W>, x, c.dq, c.dk, c.dv);
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
                                // Slots taken at once: 5 for the paper's usual width, else 4.
                                c.kept + c.global_tokens == 5 ? run_forward<W, 5>(pattern, c)
                                                              : run_forward<W, 4>(pattern, c);
                              });
                            }};

const Rung local_13_backward{
    13,
    "local: a row of lanes a token",
    Pass::backward,
    is_local,
    true,
    unsupported_width,
    no_workspace,
    [](Pattern pattern, const Call& c) {
      for_width(c.q.D, [&](auto width) { run_backward<decltype(width)::value>(pattern, c); });
    }};

}  // namespace focus::gpu
