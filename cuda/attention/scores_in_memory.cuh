// Dense attention with its T × T scores in memory, for rungs 01 and 02, which differ only in how
// they multiply matrices; and the scores of rungs 06 and 07.
//
//   forward   S = scale·Q Kᵀ,  P = softmax(S),  O = P V
//   backward  P = exp(S − lse),  dP = dO Vᵀ,  dS = P ∘ (dP − rowsum(P ∘ dP)),
//             dQ = scale·dS K,  dK = scale·dSᵀ Q,  dV = Pᵀ dO
// The workspace holds the scores (backward: S and dP) of as many heads as fit, one at least.
#pragma once

#include <algorithm>
#include <cmath>

#include "cuda/attention/attention.h"
#include "cuda/device/launch.h"

namespace focus::gpu {

// A matrix for every head: element (i,j) of head `batch_head` is at of(batch_head)[i·row + j·col].
struct Matrices {
  float* data;
  int H;
  ptrdiff_t batch, head, row, col;

  __host__ __device__ float* of(int batch_head) const {
    return data + batch_head / H * batch + batch_head % H * head;
  }
  Matrices transposed() const { return {data, H, batch, head, col, row}; }
};

inline Matrices rows_of(const Heads& x) {
  return {x.data, x.H, x.batch_stride, x.head_stride, x.row_stride, 1};
}
// (T,T) for each head from head `first` on, in memory for those only.
inline Matrices scores_at(float* memory, const Heads& x, int first) {
  const ptrdiff_t TT = ptrdiff_t{x.T} * x.T;
  return {memory - first * TT, x.H, x.H * TT, TT, x.T, 1};
}

// s: (rows,T) of heads' scores → their softmax; lse of row i at lse[i]. A thread a row.
[[maybe_unused]] static __global__ void softmax_rows(float* s, float* lse, size_t rows, int T) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= rows) return;
  float* row = s + i * size_t(T);
  float top = row[0], sum = 0;
  //@ gap 08 row-kernel
  for (int j = 1; j < T; ++j) top = fmaxf(top, row[j]);
  for (int j = 0; j < T; ++j) sum += row[j] = expf(row[j] - top);
  for (int j = 0; j < T; ++j) row[j] /= sum;
  lse[i] = top + logf(sum);
  //@ end
}

// s: scores in, P out; dp: dP in, scale·dS out. A thread a row.
[[maybe_unused]] static __global__ void softmax_rows_backward(float* s, float* dp, const float* lse,
                                                              size_t rows, int T, float scale) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= rows) return;
  float *p = s + i * size_t(T), *ds = dp + i * size_t(T), mean = 0;
  //@ gap 08 row-kernel-backward
  for (int j = 0; j < T; ++j) {
    p[j] = expf(p[j] - lse[i]);
    mean += p[j] * ds[j];
  }
  for (int j = 0; j < T; ++j) ds[j] = scale * p[j] * (ds[j] - mean);
  //@ end
}

inline size_t bytes_of_scores(const Heads& x, int matrices) {
  return size_t(x.T) * size_t(x.T) * sizeof(float) * size_t(matrices);
}
// For all heads, or as many as fit 2 GiB.
inline size_t scores_workspace(const Heads& x, int matrices) {
  const size_t one = bytes_of_scores(x, matrices);
  return std::max(one, std::min(one * size_t(x.B * x.H), size_t{2} << 30) / one * one);
}
// Calls f(first head, how many) for parts that fit the workspace.
template <class F>
void for_parts(const Call& c, int matrices, const F& f) {
  const int all = c.q.B * c.q.H;
  const int part = int(std::min(size_t(all), c.workspace_size / bytes_of_scores(c.q, matrices)));
  for (int first = 0; first < all; first += part) f(first, std::min(part, all - first));
}

//@ from 09
// Rung 02's product of matrices: c = factor · a b for `batch_heads` heads from `first` on.
void multiply_02(void* stream, int first, int batch_heads, Matrices a, Matrices b, Matrices c,
                 int rows, int columns, int inner, float factor);
//@ end

// multiply(first, batch_heads, a, b, c, rows, columns, inner, factor): c = factor · a b for those
// heads.
template <class Multiply>
void dense_forward_in_memory(const Call& c, const Multiply& multiply) {
  const int T = c.q.T, D = c.q.D;
  const float scale = c.scale();
  for_parts(c, 1, [&](int first, int batch_heads) {
    float* memory = static_cast<float*>(c.workspace);
    const Matrices s = scores_at(memory, c.q, first);
    const size_t rows = size_t(batch_heads) * size_t(T);
    multiply(first, batch_heads, rows_of(c.q), rows_of(c.k).transposed(), s, T, T, D, scale);
    launch({"softmax_rows", (rows + 127) / 128, 128}, c.stream, softmax_rows, memory,
           c.lse + size_t(first) * size_t(T), rows, T);
    multiply(first, batch_heads, s, rows_of(c.v), rows_of(c.o), T, D, T, 1.f);
  });
}

template <class Multiply>
void dense_backward_in_memory(const Call& c, const Multiply& multiply) {
  const int T = c.q.T, D = c.q.D;
  const float scale = c.scale();
  for_parts(c, 2, [&](int first, int batch_heads) {
    const size_t rows = size_t(batch_heads) * size_t(T);
    float *s_memory = static_cast<float*>(c.workspace), *dp_memory = s_memory + rows * size_t(T);
    const Matrices p = scores_at(s_memory, c.q, first), ds = scores_at(dp_memory, c.q, first);
    multiply(first, batch_heads, rows_of(c.q), rows_of(c.k).transposed(), p, T, T, D, scale);
    multiply(first, batch_heads, rows_of(c.d_o), rows_of(c.v).transposed(), ds, T, T, D, 1.f);
    launch({"softmax_rows_backward", (rows + 127) / 128, 128}, c.stream, softmax_rows_backward,
           s_memory, dp_memory, c.lse + size_t(first) * size_t(T), rows, T, scale);
    multiply(first, batch_heads, p.transposed(), rows_of(c.d_o), rows_of(c.dv), T, D, T, 1.f);
    multiply(first, batch_heads, ds, rows_of(c.k), rows_of(c.dq), T, D, T, 1.f);
    multiply(first, batch_heads, ds.transposed(), rows_of(c.q), rows_of(c.dk), T, D, T, 1.f);
  });
}

}  // namespace focus::gpu
