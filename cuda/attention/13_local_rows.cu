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
constexpr int span = 4;  // tokens that a row of lanes does one after another

template <int W>
struct Rows {
  static constexpr int lanes = W / 4, number = threads / lanes;  // of a block
  static constexpr int tokens = number * span;                   // of a block
  static __device__ int own() { return int(threadIdx.x) / lanes; }
  static __device__ int channel() { return int(threadIdx.x) % lanes * 4; }
};

// What a lane reads of a head: its 4 channels of any row; 0 beyond D.
struct Channels {
  const float* at;
  ptrdiff_t stride;
  bool exist;

  __device__ Channels(const Heads& x, int unit, int d)
      : at(x.of(unit) + d), stride(x.row_stride), exist(d < x.D) {}
  __device__ float4 operator[](int row) const { return row_if(row, true); }
  __device__ float4 row_if(int row, bool wanted) const {
    return exist && wanted ? load4(at + row * stride) : make_float4(0, 0, 0, 0);
  }
};

// Every `step`th of the rows first … end-1. All lanes of a warp make the same number of steps.
struct Run {
  int first, end, step, steps;
};

// The softmax of a query over runs of keys: running maximum (in powers of 2), sum, and output.
template <int W>
struct Softmax {
  float top = -INFINITY, sum = 0;
  float4 out = make_float4(0, 0, 0, 0);

  // U keys at once. q4: times scale·log2 e.
  template <int U>
  __device__ void add(const Channels& k, const Channels& v, float4 q4, const Run& run) {
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
        add_scaled(out, p, v4[u]);
      }
    }
  }
};

__device__ void write_row(const Heads& o, float* lse, int T, int unit, int i, int d, float4 out,
                          float top, float sum) {
  set_channels(o, unit, i, d, scaled(1 / sum, out));
  if (d == 0) lse[ptrdiff_t{unit} * T + i] = (top + fast_log2(sum)) * ln_2;
}

// Ordinary tokens, a row of lanes each.
template <int W, int U>
__global__ void __launch_bounds__(threads)
    local_fwd_13(Heads q, Heads k, Heads v, Heads o, float* lse, Window window, float to_log2) {
  using X = Rows<W>;
  const int blocks = (window.n + X::tokens - 1) / X::tokens;
  const int unit = int(blockIdx.x) / blocks, d = X::channel();
  const int first = int(blockIdx.x) % blocks * X::tokens + X::own();
  const Channels q_rows(q, unit, d), k_rows(k, unit, d), v_rows(v, unit, d);
  for (int n = 0; n < span; ++n) {
    const int i = first + n * X::number;
    const Visible keys = window.keys_of(min(i, window.n - 1));
    const float4 q4 = scaled(to_log2, q_rows.row_if(i, i < window.n));
    Softmax<W> softmax;
    softmax.template add<U>(k_rows, v_rows, q4,
                            {keys.begin, keys.begin + keys.own, 1, window.width});
    softmax.template add<4>(k_rows, v_rows, q4, {window.n, window.T, 1, window.T - window.n});
    // Rows beyond the end have only taken part in shuffles.
    if (i < window.n)
      write_row(o, lse, window.T, unit, i, d, softmax.out, softmax.top, softmax.sum);
  }
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
  Softmax<W> softmax;
  softmax.template add<4>(Channels(k, unit, d), Channels(v, unit, d),
                          scaled(to_log2, Channels(q, unit, d)[i]),
                          {row, window.T, X::number, (window.T + X::number - 1) / X::number});
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
  write_row(o, lse, window.T, unit, i, d, out, top, sum);
}

struct Inputs {
  Heads q, k, v, o, d_o;
  const float* lse;
  Window window;
  float scale;
};

// The gradients of token i: as a query over runs of keys, as a key over runs of queries.
template <int W>
struct Gradients {
  const Channels q, k, v, o, d_o;
  const float* lse;
  const float scale;
  float4 q_i, k_i, v_i, g_i;
  float lse_i, delta_i;
  float4 dq, dk, dv;

  __device__ Gradients(const Inputs& x, int unit, int d)
      : q(x.q, unit, d),
        k(x.k, unit, d),
        v(x.v, unit, d),
        o(x.o, unit, d),
        d_o(x.d_o, unit, d),
        lse(x.lse + ptrdiff_t{unit} * x.window.T),
        scale(x.scale) {}

  __device__ void start(int i) {
    q_i = q[i], k_i = k[i], v_i = v[i], g_i = d_o[i];
    lse_i = lse[i] * log2_e;
    delta_i = sum_of_lanes<W / 4>(dot(g_i, o[i]));
    dq = make_float4(0, 0, 0, 0), dk = dq, dv = dq;
  }
  __device__ void add_keys(const Run& run) {
    const float *k_j = k.at + run.first * k.stride, *v_j = v.at + run.first * v.stride;
    for (int n = 0, j = run.first; n < run.steps; ++n, j += run.step) {
      const bool in = k.exist && j < run.end;  // else everything is 0
      const float4 k4 = in ? load4(k_j) : make_float4(0, 0, 0, 0);
      const float4 v4 = in ? load4(v_j) : make_float4(0, 0, 0, 0);
      k_j += run.step * k.stride, v_j += run.step * v.stride;
      const float s = sum_of_lanes<W / 4>(dot(q_i, k4));
      const float dp = sum_of_lanes<W / 4>(dot(g_i, v4));
      const float p = j < run.end ? fast_exp2(fmaf(s, scale * log2_e, -lse_i)) : 0.f;
      add_scaled(dq, scale * p * (dp - delta_i), k4);
    }
  }
  __device__ void add_queries(const Run& run) {
    const float *q_l = q.at + run.first * q.stride, *g_l = d_o.at + run.first * d_o.stride,
                *o_l = o.at + run.first * o.stride;
    for (int n = 0, l = run.first; n < run.steps; ++n, l += run.step) {
      const bool in = q.exist && l < run.end;
      const float4 q4 = in ? load4(q_l) : make_float4(0, 0, 0, 0);
      const float4 g4 = in ? load4(g_l) : make_float4(0, 0, 0, 0);
      const float4 o4 = in ? load4(o_l) : make_float4(0, 0, 0, 0);
      q_l += run.step * q.stride, g_l += run.step * d_o.stride, o_l += run.step * o.stride;
      const float s = sum_of_lanes<W / 4>(dot(q4, k_i));
      // dP − delta is the product of dO with V[i] − O[l].
      const float4 gap = make_float4(v_i.x - o4.x, v_i.y - o4.y, v_i.z - o4.z, v_i.w - o4.w);
      const float dp = sum_of_lanes<W / 4>(dot(g4, gap));
      const float p = l < run.end ? fast_exp2(fmaf(s, scale * log2_e, -lse[l] * log2_e)) : 0.f;
      add_scaled(dk, scale * p * dp, q4);
      add_scaled(dv, p, g4);
    }
  }
};

template <int W>
__global__ void __launch_bounds__(threads) local_bwd_13(Inputs x, Heads dq, Heads dk, Heads dv) {
  using X = Rows<W>;
  const Window& window = x.window;
  const int blocks = (window.n + X::tokens - 1) / X::tokens;
  const int unit = int(blockIdx.x) / blocks, d = X::channel(), g = window.T - window.n;
  const int first = int(blockIdx.x) % blocks * X::tokens + X::own();
  Gradients<W> sum(x, unit, d);
  for (int n = 0; n < span; ++n) {
    const int i = first + n * X::number, own = min(i, window.n - 1);
    const Visible keys = window.keys_of(own), queries = window.queries_of(own);
    sum.start(own);
    sum.add_keys({keys.begin, keys.begin + keys.own, 1, window.width});
    sum.add_keys({window.n, window.T, 1, g});
    // Near an end of the sequence more queries see a key: their bands are shifted.
    int steps = queries.own;
    for (int lanes = W / 4; lanes < 32; lanes *= 2)
      steps = max(steps, __shfl_xor_sync(all_lanes, steps, lanes));
    sum.add_queries({queries.begin, queries.begin + queries.own, 1, steps});
    sum.add_queries({window.n, window.T, 1, g});
    if (i >= window.n) continue;
    set_channels(dq, unit, i, d, sum.dq);
    set_channels(dk, unit, i, d, sum.dk);
    set_channels(dv, unit, i, d, sum.dv);
  }
}

template <int W>
__global__ void __launch_bounds__(threads)
    local_bwd_global_13(Inputs x, Heads dq, Heads dk, Heads dv) {
  using X = Rows<W>;
  SharedMemory shared;
  float* parts = shared.array<float>(X::number * 3 * W);
  const int T = x.window.T, g = T - x.window.n, unit = int(blockIdx.x) / g;
  const int i = x.window.n + int(blockIdx.x) % g, d = X::channel(), row = X::own();
  Gradients<W> sum(x, unit, d);
  sum.start(i);
  const Run all{row, T, X::number, (T + X::number - 1) / X::number};
  sum.add_keys(all);
  sum.add_queries(all);
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
  launch({"local_fwd_13", units * size_t(tiles_of(window.n, X::tokens)), threads}, c.stream,
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
  launch({"local_bwd_13", units * size_t(tiles_of(x.window.n, X::tokens)), threads}, c.stream,
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
