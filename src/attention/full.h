// Full attention of one head, with matrix products over 48 query rows at a time, so that their
// scores stay in the fast caches. Under a causal mask the products stop at the last key that one of
// these queries sees.
//
// Forward keeps the probabilities P (T × Tp, rows padded to whole vectors) for the backward. Where
// there is none it is called for `strip_rows` queries at a time, which share their P's memory.
#pragma once

#include <algorithm>
#include <limits>

#include "attention/head.h"

namespace focus::full {

inline constexpr int block_rows = 48;  // eight register tiles; 48 × 608 floats are 114 KiB
inline constexpr int strip_rows = 10 * block_rows;  // so that K is not transposed too often

// The scratch of one thread for forward and backward, in numbers.
template <class T>
size_t scratch_size(int length, int width) {
  const size_t padded = size_t(round_up_to_lanes<T>(length));
  return padded * size_t(width) + 2 * block_rows * padded;
}

// p: (queries,Tp) out; keep: dropout's mask of all keys that are seen, or nullptr; o: (T,D) out,
// rows head.stride apart.
template <class T>
void forward(const Head<T>& head, T* p, const uint8_t* keep, T keep_scale, T* o, T* scratch) {
  const int N = head.queries, D = head.width, padded = round_up_to_lanes<T>(head.length);
  T* kt = scratch;                               // Kᵀ, (D,Tp)
  T* dropped = kt + size_t(padded) * size_t(D);  // (block_rows,Tp)
  transpose(head.length, D, head.k, head.stride, kt, padded);
  //@ gap 03 full-forward
  for (int i0 = 0; i0 < N; i0 += block_rows) {
    const int rows = std::min(block_rows, N - i0);
    const int keys = head.seen(i0 + rows - 1), width = round_up_to_lanes<T>(keys);
    T *block = p + ptrdiff_t{i0} * padded, *weights = block;
    gemm(rows, width, D, row_major(head.q + i0 * head.stride, head.stride), kt, padded, block,
         padded, GemmStart::zero);
    for (int i = 0; i < rows; ++i) {
      T* row = block + ptrdiff_t{i} * padded;
      const int seen = head.seen(i0 + i);
      // No key, no weight: 0. Whole vectors are faster than a ragged end.
      std::fill(row + seen, row + width, -std::numeric_limits<T>::infinity());
      softmax_row(row, row, width, head.scale);
      if (keep)
        apply_dropout(dropped + ptrdiff_t{i} * padded, row, keep + head.seen_before(i0 + i),
                      keep_scale, seen, keys);
    }
    if (keep) weights = dropped;
    gemm(rows, D, keys, row_major(weights, padded), head.v, head.stride, o + i0 * head.stride,
         head.stride, GemmStart::zero);
  }
  //@ end
}

// Adds to dq, dk, dv, or sets them without d.accumulate, which a causal mask must have. With O = P̃
// V, P̃ = dropout(P), P = softmax(S), S = scale · Q Kᵀ: dV = P̃ᵀ dO, dP̃ = dO Vᵀ, dS as in
// softmax_row_backward, dQ = dS K, dK = dSᵀ Q.
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
    const int keys = head.seen(i0 + rows - 1), width = round_up_to_lanes<T>(keys);
    gemm(rows, width, D, row_major(d_o_block, stride), vt, padded, ds, padded, GemmStart::zero);
    const T* weights = block;
    const GemmStart start = d.accumulate || i0 > 0 ? GemmStart::add : GemmStart::zero;
    //@ gap 03 full-backward
    for (int i = 0; i < rows; ++i) {
      const T* p_row = block + ptrdiff_t{i} * padded;
      T* ds_row = ds + ptrdiff_t{i} * padded;
      if (keep) {
        const uint8_t* keep_row = keep + head.seen_before(i0 + i);
        const int seen = head.seen(i0 + i);
        apply_dropout(dropped + ptrdiff_t{i} * padded, p_row, keep_row, keep_scale, seen, keys);
        apply_dropout(ds_row, ds_row, keep_row, keep_scale, seen, keys);
      }
      softmax_row_backward(ds_row, ds_row, p_row, keys, head.scale);
    }
    if (keep) weights = dropped;
    gemm(keys, D, rows, transposed(weights, padded), d_o_block, stride, d.dv, stride, start);
    gemm(rows, D, keys, row_major(ds, padded), head.k, stride, d.dq + i0 * stride, stride,
         d.accumulate ? GemmStart::add : GemmStart::zero);
    gemm(keys, D, rows, transposed(ds, padded), head.q + i0 * stride, stride, d.dk, stride, start);
    //@ end
  }
}

}  // namespace focus::full
