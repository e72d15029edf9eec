// Full attention of one head, with matrix products over blocks of query rows, so that a block's
// scores stay in the fast caches.
//
// Forward keeps the probabilities P (T × Tp, rows padded to whole vectors) for the backward.
#pragma once

#include <algorithm>
#include <limits>

#include "attention/head.h"

namespace focus::full {

inline constexpr int block_rows = 48;  // eight register tiles; 48 × 608 floats are 114 KiB

// Numbers of scratch that one thread needs, for forward and backward.
template <class T>
size_t scratch_size(int length, int width) {
  const size_t padded = size_t(round_up_to_lanes<T>(length));
  return padded * size_t(width) + 2 * block_rows * padded;
}

// p: (T,Tp) out; keep: (T,T) dropout's mask or nullptr; o: (T,D) out, rows head.stride apart.
template <class T>
void forward(const Head<T>& head, T* p, const uint8_t* keep, T keep_scale, T* o, T* scratch) {
  const int N = head.length, D = head.width, padded = round_up_to_lanes<T>(N);
  T* kt = scratch;                               // Kᵀ, (D,Tp)
  T* dropped = kt + size_t(padded) * size_t(D);  // (block_rows,Tp)
  transpose(N, D, head.k, head.stride, kt, padded);
  //@ begin 03 full-forward points=7
  //@ plan For each block of at most block_rows queries, the first of them i0:
  //@ plan 1. Its rows of p, `padded` numbers each: Q's rows times kt (GemmStart::zero).
  //@ plan 2. In each row: -infinity from N to padded, then the softmax in place (head.scale).
  //@ plan 3. With dropout (keep is not nullptr) apply_mask makes row i of `dropped` from that row;
  //@ plan    the mask of query i0 + i begins at keep + (i0 + i) * N. p itself stays undropped.
  //@ plan 4. The block's rows of o: the weights (its rows of p, or `dropped`) times V, from zero.
  //@ hint 1 A row of p is padded with keys that do not exist. What would a score of 0 there do to
  //@ hint 1 the weights of the others, and which score gives a weight of exactly 0?
  //@ hint 2 README, the table: "scores", "weights", "output". gemm(M, N, K, A, B, ldb, C, ldc,
  //@ hint 2 start) is in src/tensor/gemm.h, and backward below calls it with the same blocks of
  //@ hint 2 rows.
  //@ hint 3 for i0 from 0 below N in steps of block_rows:
  //@ hint 3   rows = the smaller of block_rows and N - i0
  //@ hint 3   block = p + i0 * padded; weights = block
  //@ hint 3   gemm: rows x padded, inner D; row_major(head.q + i0 * head.stride, head.stride)
  //@ hint 3     times kt (its rows padded apart) into block (rows padded apart), from zero
  //@ hint 3   for i from 0 to rows - 1, row = block + i * padded:
  //@ hint 3     fill row from N to padded with -infinity
  //@ hint 3     softmax_row from row to row, padded numbers, head.scale
  //@ hint 3     if keep: apply_mask from row to dropped + i * padded, with the mask
  //@ hint 3       keep + (i0 + i) * N, keep_scale and N numbers
  //@ hint 3   if keep: weights = dropped
  //@ hint 3   gemm: rows x D, inner N; row_major(weights, padded) times head.v into
  //@ hint 3     o + i0 * head.stride (rows of both head.stride apart), from zero
  //@ notice One query block of scores is used up while it is still in the cache. P is all that the
  //@ notice backward needs of this; the dropped weights are made again there.
  for (int i0 = 0; i0 < N; i0 += block_rows) {
    const int rows = std::min(block_rows, N - i0);
    T* block = p + ptrdiff_t{i0} * padded;
    gemm(rows, padded, D, row_major(head.q + i0 * head.stride, head.stride), kt, padded, block,
         padded, GemmStart::zero);
    const T* weights = block;
    for (int i = 0; i < rows; ++i) {
      T* row = block + ptrdiff_t{i} * padded;
      // Padding gets weight 0, and whole vectors are faster than a ragged end.
      //@ mutant full-padding-counts: padding keeps its scores and takes part in the softmax
      std::fill(row + N, row + padded, -std::numeric_limits<T>::infinity());
      //@ mutant full-no-scale: the scores are not divided by √D
      //~ softmax_row(row, row, padded, T(1));
      softmax_row(row, row, padded, head.scale);
      if (keep)
        apply_mask(dropped + ptrdiff_t{i} * padded, row, keep + ptrdiff_t{i0 + i} * N, keep_scale,
                   N);
    }
    //@ mutant full-undropped-output: the output is made from the weights before dropout
    if (keep) weights = dropped;
    gemm(rows, D, N, row_major(weights, padded), head.v, head.stride, o + i0 * head.stride,
         head.stride, GemmStart::zero);
  }
  //@ end
}

// Adds to dq, dk, dv, or sets them if they are fresh. With O = P̃ V, P̃ = dropout(P), P = softmax(S),
// S = scale · Q Kᵀ: dV = P̃ᵀ dO, dP̃ = dO Vᵀ, dS as in softmax_row_backward, dQ = dS K, dK = dSᵀ Q.
template <class T>
void backward(const Head<T>& head, const HeadGradients<T>& d, const T* p, const uint8_t* keep,
              T keep_scale, const T* d_o, T* scratch) {
  const int N = head.length, D = head.width, padded = round_up_to_lanes<T>(N);
  const ptrdiff_t stride = head.stride;
  T* vt = scratch;                          // Vᵀ, (D,Tp)
  T* ds = vt + size_t(padded) * size_t(D);  // dP̃, then dP, then dS: (block_rows,Tp)
  T* dropped = ds + block_rows * size_t(padded);
  transpose(N, D, head.v, stride, vt, padded);
  for (int i0 = 0; i0 < N; i0 += block_rows) {
    const int rows = std::min(block_rows, N - i0);
    const T* block = p + ptrdiff_t{i0} * padded;
    const T* d_o_block = d_o + i0 * stride;
    gemm(rows, padded, D, row_major(d_o_block, stride), vt, padded, ds, padded, GemmStart::zero);
    const T* weights = block;
    const GemmStart start = d.fresh && i0 == 0 ? GemmStart::zero : GemmStart::add;
    //@ begin 03 full-backward points=6
    //@ plan `ds` holds dP̃ of this block, `weights` its rows of P; dK and dV begin with `start`.
    //@ plan 1. Each row i: with dropout, make `dropped` as in forward, and turn dP̃ into dP with the
    //@ plan    same mask (row i of ds, in place). Then softmax_row_backward in place: dS.
    //@ plan 2. dV (all N rows) gets weightsᵀ dO of this block, with the weights after dropout.
    //@ plan 3. The block's rows of dQ get dS K; they are visited once: zero if d.fresh, else add.
    //@ plan 4. dK (all N rows) gets dSᵀ Q, with this block's rows of Q.
    //@ hint 1 dV and dK are sums over queries, dQ is not. Which of the three does each block of
    //@ hint 1 queries write completely, and to which does it only add its part?
    //@ hint 2 README, "Backward", all of it. transposed(a, row_stride) of
    //@ hint 2 src/tensor/gemm.h gives gemm a transposed left operand; P stands in dS, P after
    //@ hint 2 dropout in dV.
    //@ hint 3 for i from 0 to rows - 1, with row i of block, ds and dropped (padded apart):
    //@ hint 3   if keep: with the mask keep + (i0 + i) * N, keep_scale and N numbers,
    //@ hint 3     apply_mask from row i of block to row i of dropped
    //@ hint 3     apply_mask from row i of ds to itself
    //@ hint 3   softmax_row_backward: row i of ds to itself, with row i of block, N, head.scale
    //@ hint 3 if keep: weights = dropped
    //@ hint 3 gemm: N x D, inner rows; transposed(weights, padded) times d_o_block
    //@ hint 3   into d.dv, `start`
    //@ hint 3 gemm: rows x D, inner N; row_major(ds, padded) times head.k
    //@ hint 3   into d.dq + i0 * stride, from zero if d.fresh, else add
    //@ hint 3 gemm: N x D, inner rows; transposed(ds, padded) times head.q + i0 * stride
    //@ hint 3   into d.dk, `start`
    //@ hint 3 (d_o_block, head.k, head.q and the three gradients have rows `stride` apart)
    //@ notice Dropout of 1 % hides a mistake with the mask from any training curve; only a
    //@ notice comparison with the formula, number by number, shows it.
    for (int i = 0; i < rows; ++i) {
      const T* p_row = block + ptrdiff_t{i} * padded;
      T* ds_row = ds + ptrdiff_t{i} * padded;
      if (keep) {
        const uint8_t* keep_row = keep + ptrdiff_t{i0 + i} * N;
        apply_mask(dropped + ptrdiff_t{i} * padded, p_row, keep_row, keep_scale, N);
        //@ mutant full-ds-undropped: the softmax hears of weights that dropout had removed
        apply_mask(ds_row, ds_row, keep_row, keep_scale, N);
      }
      //@ mutant full-ds-no-mean: the softmax's Jacobian without its - p pᵀ
      //~ for (int j = 0; j < N; ++j) ds_row[j] *= head.scale * p_row[j];
      softmax_row_backward(ds_row, ds_row, p_row, N, head.scale);
    }
    //@ mutant full-dv-undropped: dV from P where it should be from dropout(P)
    if (keep) weights = dropped;
    gemm(N, D, rows, transposed(weights, padded), d_o_block, stride, d.dv, stride, start);
    gemm(rows, D, N, row_major(ds, padded), head.k, stride, d.dq + i0 * stride, stride,
         d.fresh ? GemmStart::zero : GemmStart::add);
    //@ mutant full-dk-first-rows: every block of queries uses the first block's
    //~ gemm(N, D, rows, transposed(ds, padded), head.q, stride, d.dk, stride, start);
    //@ mutant full-dk-from-k: dK from K where it should be from Q
    //~ gemm(N, D, rows, transposed(ds, padded), head.k + i0 * stride, stride, d.dk, stride, start);
    gemm(N, D, rows, transposed(ds, padded), head.q + i0 * stride, stride, d.dk, stride, start);
    //@ end
  }
}

}  // namespace focus::full
