// Rung 13, banded and block attention with global tokens, backward: a row of W/4 lanes a token, as
// in the forward. The token's row of lanes sums its dQ over the keys it sees and its dK and dV over
// the queries that see it, recomputing their weights, so nothing is added atomically: at width 5 it
// reads q, k, v, o, dO and writes dq, dk, dv once. A global token has a block of its own.
//
// D a multiple of 4 from 16 to 128. Predicted at (16,16,2048,64), width 5, at 80 % of 4.25 TB/s:
// 1.07 GB, 0.32 ms. Measured 0.48 ms: recomputing takes 10 products of two rows for each of the 5
// partners, some 900 instructions for two tokens, which alone take 0.25 ms to issue. In a training
// step with dropout, (250,1,600,64): predicted 0.16 ms, measured 0.24: it reads a word of bits for
// each pair and finds the key's place in it.
#include <cmath>

#include "cuda/attention/local_rows.cuh"

namespace focus::gpu {

namespace {

struct Inputs {
  Heads q, k, v, o, d_o;
  const float* lse;
  KeepBits keep;
  Window window;
  float scale;
};

// The gradients of token i: as a query over runs of keys, as a key over runs of queries.
template <int W, bool Drops>
struct Gradients {
  const Window& window;
  const KeepBits& keep;
  const size_t first_row;  // of the batch_head, among all (B,H,T)
  const Channels q, k, v, o, d_o;
  const float* lse;
  const float scale;
  float4 q_i, k_i, v_i, g_i;
  int i, slot_in_block;  // slot: of the token in its block
  float lse_i, delta_i;
  float4 dq, dk, dv;

  __device__ Gradients(const Inputs& x, int batch_head, int d)
      : window(x.window),
        keep(x.keep),
        first_row(size_t(batch_head) * size_t(x.window.T)),
        q(x.q, batch_head, d),
        k(x.k, batch_head, d),
        v(x.v, batch_head, d),
        o(x.o, batch_head, d),
        d_o(x.d_o, batch_head, d),
        lse(x.lse + ptrdiff_t{batch_head} * x.window.T),
        scale(x.scale) {}

  __device__ void start(int token) {
    i = token;
    if (Drops && !window.banded) slot_in_block = i % window.width;
    q_i = q[i], k_i = k[i], v_i = v[i], g_i = d_o[i];
    lse_i = lse[i] * log2_e;
    delta_i = sum_of_lanes<W / 4>(dot(g_i, o[i]));
    dq = make_float4(0, 0, 0, 0), dk = dq, dv = dq;
  }
  // The token's slot in the list of query l, which sees it.
  __device__ int slot_of(int l) const {
    if (l >= window.n) return i;
    if (i >= window.n) return window.keys_of(l).own + i - window.n;
    return window.banded ? i - window.keys_of(l).begin : slot_in_block;
  }
  __device__ Factors<Drops> factors_of(int query) const {
    return {keep, first_row + size_t(query)};
  }
  __device__ void add_keys(const Run& run) {
    const float *k_j = k.at + run.first * k.stride, *v_j = v.at + run.first * v.stride;
    const Factors<Drops> factor = factors_of(i);
    for (int n = 0, j = run.first; n < run.steps; ++n, j += run.step) {
      const bool in = k.exist && j < run.end;  // else everything is 0
      const float4 k4 = in ? load4(k_j) : make_float4(0, 0, 0, 0);
      const float4 v4 = in ? load4(v_j) : make_float4(0, 0, 0, 0);
      k_j += run.step * k.stride, v_j += run.step * v.stride;
      const float s = sum_of_lanes<W / 4>(dot(q_i, k4));
      const float dp =
          sum_of_lanes<W / 4>(dot(g_i, v4)) * factor(run.slot + n * run.step, j < run.end);
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
      const float kept = factors_of(l)(slot_of(l), l < run.end);
      // dP − delta is the product of dO with V[i], dropped or scaled, less O[l].
      const float4 gap = make_float4(kept * v_i.x - o4.x, kept * v_i.y - o4.y, kept * v_i.z - o4.z,
                                     kept * v_i.w - o4.w);
      const float dp = sum_of_lanes<W / 4>(dot(g4, gap));
      const float p = l < run.end ? fast_exp2(fmaf(s, scale * log2_e, -lse[l] * log2_e)) : 0.f;
      add_scaled(dk, scale * p * dp, q4);
      add_scaled(dv, p * kept, g4);
    }
  }
};

template <int W, bool Drops>
__global__ void __launch_bounds__(row_threads)
    local_bwd_13(Inputs x, Heads dq, Heads dk, Heads dv) {
  using X = Rows<W>;
  const Window& window = x.window;
  const int blocks = (window.n + X::tokens - 1) / X::tokens;
  const int batch_head = int(blockIdx.x) / blocks, d = X::channel(), g = window.T - window.n;
  const int first = int(blockIdx.x) % blocks * X::tokens + X::own();
  Gradients<W, Drops> sum(x, batch_head, d);
  for (int n = 0; n < span; ++n) {
    const int i = first + n * X::number, own = min(i, window.n - 1);
    const Visible keys = window.keys_of(own), queries = window.queries_of(own);
    sum.start(own);
    sum.add_keys({keys.begin, keys.begin + keys.own, 1, window.width});
    sum.add_keys({window.n, window.T, 1, g, keys.own});
    // Near an end of the sequence more queries see a key: their bands are shifted.
    int steps = queries.own;
    for (int lanes = W / 4; lanes < 32; lanes *= 2)
      steps = max(steps, __shfl_xor_sync(all_lanes, steps, lanes));
    sum.add_queries({queries.begin, queries.begin + queries.own, 1, steps});
    sum.add_queries({window.n, window.T, 1, g});
    if (i >= window.n) continue;
    set_channels(dq, batch_head, i, d, sum.dq);
    set_channels(dk, batch_head, i, d, sum.dk);
    set_channels(dv, batch_head, i, d, sum.dv);
  }
}

template <int W, bool Drops>
__global__ void __launch_bounds__(row_threads)
    local_bwd_global_13(Inputs x, Heads dq, Heads dk, Heads dv) {
  using X = Rows<W>;
  SharedMemory shared;
  float* parts = shared.array<float>(X::number * 3 * W);
  const int T = x.window.T, g = T - x.window.n, batch_head = int(blockIdx.x) / g;
  const int i = x.window.n + int(blockIdx.x) % g, d = X::channel(), row = X::own();
  Gradients<W, Drops> sum(x, batch_head, d);
  sum.start(i);
  const Run all{row, T, X::number, (T + X::number - 1) / X::number, row};
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
  set_channels(dq, batch_head, i, d, sum.dq);
  set_channels(dk, batch_head, i, d, sum.dk);
  set_channels(dv, batch_head, i, d, sum.dv);
}

template <int W, bool Drops>
void run_backward(Pattern pattern, const Call& c) {
  using X = Rows<W>;
  const Inputs x{c.q, c.k, c.v, c.o, c.d_o, c.lse, c.keep, window_of(pattern, c), c.scale()};
  const size_t batch_heads = size_t(c.q.B) * size_t(c.q.H);
  launch({"local_bwd_13", batch_heads * size_t(tiles_of(x.window.n, X::tokens)), row_threads},
         c.stream, local_bwd_13<W, Drops>, x, c.dq, c.dk, c.dv);
  launch({"local_bwd_global_13", batch_heads * size_t(c.global_tokens), row_threads,
          shared_bytes_for(X::number * 3 * W)},
         c.stream, local_bwd_global_13<W, Drops>, x, c.dq, c.dk, c.dv);
}

}  // namespace

const Rung local_13_backward{13,
                             "local: a row of lanes a token",
                             Pass::backward,
                             is_local,
                             true,
                             unsupported_width,
                             no_workspace,
                             [](Pattern pattern, const Call& c) {
                               for_width(c.q.D, [&](auto width) {
                                 constexpr int W = decltype(width)::value;
                                 c.keep.words ? run_backward<W, true>(pattern, c)
                                              : run_backward<W, false>(pattern, c);
                               });
                             },
                             {.dropout = true}};

}  // namespace focus::gpu
