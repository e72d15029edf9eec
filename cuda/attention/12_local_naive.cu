// Rung 12, banded and block attention with global tokens, forward and backward: a thread a token,
// straight from the formulas, only over the pairs that see each other. The backward has no atomics:
// each query sums its dQ, and each key visits the queries that see it and sums its dK and dV. A
// global token's thread visits all tokens while its warp waits.
//
// Any T, D, width. Predicted at (16,16,2048,64), width 5: neighbouring threads read 256 bytes
// apart, 32 cache lines a load, twice 10 rows of 64 loads for each of 524288 queries: 3 ms forward.
// Measured: 17 ms for the band, 4.3 ms for blocks, whose neighbouring queries read the same keys.
#include <cmath>

#include "cuda/attention/local.cuh"
#include "cuda/attention/rungs.h"
#include "cuda/device/launch.h"

namespace focus::gpu {

namespace {

__device__ const float* row_of(const Heads& x, int batch_head, int i) {
  return x.of(batch_head) + i * x.row_stride;
}
__device__ float dot_rows(const float* a, const float* b, int D) {
  float sum = 0;
  for (int d = 0; d < D; ++d) sum += a[d] * b[d];
  return sum;
}
__device__ void add_row(float* sum, float weight, const float* x, int D) {
  for (int d = 0; d < D; ++d) sum[d] += weight * x[d];
}
__device__ void clear_row(float* x, int D) {
  for (int d = 0; d < D; ++d) x[d] = 0;
}

__global__ void local_fwd_12(Heads q, Heads k, Heads v, Heads o, float* lse, Window window,
                             float scale) {
  const int row = int(blockIdx.x * blockDim.x + threadIdx.x), T = q.T, D = q.D;
  if (row >= q.B * q.H * T) return;
  const int batch_head = row / T, i = row % T;
  const float* q_i = row_of(q, batch_head, i);
  const Visible keys = window.keys_of(i);
  float top = -INFINITY, sum = 0;
  for (int e = 0; e < keys.count; ++e)
    top = fmaxf(top, scale * dot_rows(q_i, row_of(k, batch_head, keys.token(e)), D));
  float* o_i = o.of(batch_head) + i * o.row_stride;
  clear_row(o_i, D);
  for (int e = 0; e < keys.count; ++e) {
    const int j = keys.token(e);
    const float p = expf(scale * dot_rows(q_i, row_of(k, batch_head, j), D) - top);
    sum += p;
    add_row(o_i, p, row_of(v, batch_head, j), D);
  }
  for (int d = 0; d < D; ++d) o_i[d] /= sum;
  lse[row] = top + logf(sum);
}

struct Pair {
  float p, ds;
};
// The weight of a pair that sees each other, and its score's gradient.
__device__ Pair pair_of(const Heads& q, const Heads& k, const Heads& v, const Heads& o,
                        const Heads& d_o, const float* lse, int batch_head, int i, int j,
                        float scale) {
  const float *g = row_of(d_o, batch_head, i), delta = dot_rows(g, row_of(o, batch_head, i), q.D);
  const float p = expf(scale * dot_rows(row_of(q, batch_head, i), row_of(k, batch_head, j), q.D) -
                       lse[ptrdiff_t{batch_head} * q.T + i]);
  return {p, scale * p * (dot_rows(g, row_of(v, batch_head, j), q.D) - delta)};
}

__global__ void local_bwd_12(Heads q, Heads k, Heads v, Heads o, Heads d_o, const float* lse,
                             Heads dq, Heads dk, Heads dv, Window window, float scale) {
  const int row = int(blockIdx.x * blockDim.x + threadIdx.x), T = q.T, D = q.D;
  if (row >= q.B * q.H * T) return;
  const int batch_head = row / T, i = row % T;
  float* dq_i = dq.of(batch_head) + i * dq.row_stride;
  float* dk_i = dk.of(batch_head) + i * dk.row_stride;
  float* dv_i = dv.of(batch_head) + i * dv.row_stride;
  clear_row(dq_i, D), clear_row(dk_i, D), clear_row(dv_i, D);
  const Visible keys = window.keys_of(i), queries = window.queries_of(i);
  for (int e = 0; e < keys.count; ++e) {
    const int j = keys.token(e);
    add_row(dq_i, pair_of(q, k, v, o, d_o, lse, batch_head, i, j, scale).ds,
            row_of(k, batch_head, j), D);
  }
  for (int e = 0; e < queries.count; ++e) {
    const int l = queries.token(e);
    const Pair pair = pair_of(q, k, v, o, d_o, lse, batch_head, l, i, scale);
    add_row(dk_i, pair.ds, row_of(q, batch_head, l), D);
    add_row(dv_i, pair.p, row_of(d_o, batch_head, l), D);
  }
}

size_t blocks_of(const Call& c) {
  return (size_t(c.q.B) * size_t(c.q.H) * size_t(c.q.T) + 127) / 128;
}

}  // namespace

const Rung local_12_forward{12,
                            "local: a thread a token",
                            Pass::forward,
                            is_local,
                            true,
                            supports_all,
                            no_workspace,
                            [](Pattern pattern, const Call& c) {
                              launch({"local_fwd_12", blocks_of(c), 128}, c.stream, local_fwd_12,
                                     c.q, c.k, c.v, c.o, c.lse, window_of(pattern, c), c.scale());
                            }};

const Rung local_12_backward{12,
                             "local: a thread a token",
                             Pass::backward,
                             is_local,
                             true,
                             supports_all,
                             no_workspace,
                             [](Pattern pattern, const Call& c) {
                               launch({"local_bwd_12", blocks_of(c), 128}, c.stream, local_bwd_12,
                                      c.q, c.k, c.v, c.o, c.d_o, c.lse, c.dq, c.dk, c.dv,
                                      window_of(pattern, c), c.scale());
                             }};

}  // namespace focus::gpu
