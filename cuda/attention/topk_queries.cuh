// Top-k backward, the queries' half, for rungs 10 and 11: W/4 lanes own a query and read the kept
// rows of K and V.
//
//   dP_e = dO · V[key_e],  dS_e = scale · p_e (dP_e − Σ p dP),  dQ = Σ dS_e K[key_e]
//
// K: the compiled list length, or 0 for any k, whose dP waits in memory (weights).
#pragma once

#include <cmath>

#include "cuda/attention/row_lanes.cuh"
#include "cuda/attention/rungs.h"
#include "cuda/device/launch.h"

namespace focus::gpu {

inline constexpr int query_threads = 256;

// What a kept key's gradients are made of: dK += ds q, dV += p dO.
struct alignas(8) Weights {
  float p, ds;
};
// block: of the blocks that do this. each(d, key, ds, p, q, d_o, batch_head): what rung 10 does
// with each kept key. weights: (B,H,T,k), or nullptr if K > 0 and nobody wants them. keep: dropout,
// which scales dP and the p that dV sums; for rung 11 only.
template <int W, int K, class Each>
__device__ __forceinline__ void backward_of_query(int block, const Heads& q, const Heads& k,
                                                  const Heads& v, const Heads& d_o, const Heads& dq,
                                                  const int* keys, const float* p, Weights* weights,
                                                  const KeepBits& keep, int kept, float scale,
                                                  const Each& each) {
  constexpr int row_lanes = W / 4;
  const int row = block * (query_threads / row_lanes) + int(threadIdx.x) / row_lanes;
  const int d = int(threadIdx.x) % row_lanes * 4, rows = q.B * q.H * q.T;
  // All lanes of a warp take part in its shuffles: those beyond the last row repeat it.
  const int own = min(row, rows - 1), batch_head = own / q.T, i = own % q.T;
  const int b = batch_head / q.H, h = batch_head % q.H;
  const float *k_head = k.of(b, h), *v_head = v.of(b, h);
  const float4 q4 = channels(q, q.of(b, h), i, d), g4 = channels(d_o, d_o.of(b, h), i, d);
  keys += ptrdiff_t{own} * kept, p += ptrdiff_t{own} * kept;
  if (weights) weights += ptrdiff_t{own} * kept;
  float4 sum = make_float4(0, 0, 0, 0);
  float mean = 0;
  if constexpr (K > 0) {
    float dp[K], weight[K];
    int key[K];
    // All loads start before the first is needed, as far as there are registers.
    constexpr bool early = K <= 8;
    float4 k4[early ? K : 1], v4[early ? K : 1];
    const unsigned kept_bits = keep.words ? keep.words[size_t(own) * size_t(keep.per_row)] : ~0u;
    const auto factor = [&](int e) { return (kept_bits >> e & 1) ? keep.scale : 0.f; };
#pragma unroll
    for (int e = 0; e < K; ++e) key[e] = e < kept ? keys[e] : 0, weight[e] = e < kept ? p[e] : 0.f;
    if constexpr (early)
#pragma unroll
      for (int e = 0; e < K; ++e)
        v4[e] = channels(v, v_head, key[e], d), k4[e] = channels(k, k_head, key[e], d);
#pragma unroll
    for (int e = 0; e < K; ++e) {
      dp[e] = dot(g4, early ? v4[early ? e : 0] : channels(v, v_head, key[e], d));
      if (keep.words) dp[e] *= factor(e);
    }
    //@ gap 10 query-gradients
#pragma unroll
    for (int e = 0; e < K; ++e) {
      dp[e] = sum_of_lanes<row_lanes>(dp[e]);
      mean += e < kept ? weight[e] * dp[e] : 0.f;
    }
#pragma unroll
    for (int e = 0; e < K; ++e) {
      if (e >= kept) continue;
      const float ds_e = scale * weight[e] * (dp[e] - mean);
      add_scaled(sum, ds_e, early ? k4[early ? e : 0] : channels(k, k_head, key[e], d));
      if (row < rows) {
        if (weights && d == 0) weights[e] = {weight[e], ds_e};
        each(d, key[e], ds_e, weight[e], q4, g4, batch_head);
      }
    }
    //@ end
    if (keep.words && weights && d == 0 && row < rows)
#pragma unroll
      for (int e = 0; e < K; ++e)
        if (e < kept) weights[e].p = weight[e] * factor(e);
  } else {
    for (int e = 0; e < kept; ++e) {
      float dp = sum_of_lanes<row_lanes>(dot(g4, channels(v, v_head, keys[e], d)));
      if (keep.words) dp *= keep.factor(size_t(own), e);
      mean += p[e] * dp;
      if (d == 0 && row < rows) weights[e] = {p[e], dp};
    }
    __syncwarp();  // lane d = 0 has written dP for the others
    for (int e = 0; e < kept; ++e) {
      const float ds_e = scale * p[e] * (weights[e].ds - mean);
      add_scaled(sum, ds_e, channels(k, k_head, keys[e], d));
      if (row < rows) each(d, keys[e], ds_e, p[e], q4, g4, batch_head);
    }
    __syncwarp();  // all lanes have read dP
    for (int e = d / 4; e < kept && row < rows; e += row_lanes) {
      weights[e].ds = scale * p[e] * (weights[e].ds - mean);
      if (keep.words) weights[e].p *= keep.factor(size_t(own), e);
    }
  }
  if (row < rows && d < q.D) store4(dq.of(b, h) + i * dq.row_stride + d, sum);
}

inline size_t topk_edges(const Call& c) {
  return size_t(c.q.B) * size_t(c.q.H) * size_t(c.q.T) * size_t(c.kept);
}

// As for_list, and 0 for lists of any length.
template <class F>
void for_any_list(int k, const F& f) {
  if (k > longest_list) return f(std::integral_constant<int, 0>{});
  for_list(k, f);
}

template <int W>
size_t query_blocks(const Call& c) {
  constexpr size_t rows_per_block = query_threads / (W / 4);
  const size_t rows = size_t(c.q.B) * size_t(c.q.H) * size_t(c.q.T);
  return (rows + rows_per_block - 1) / rows_per_block;
}

}  // namespace focus::gpu
