// The matrix product C (+)= A·B, the one place where most of a training step's time goes.
//
// A tile of C, 6 rows by 4 vectors where the processor has 32 registers, stays in registers while
// the loop runs over the inner dimension: each step loads 4 vectors of B and 6 numbers of A for 24
// fused multiply-adds, so arithmetic and not memory is the limit. Rows are split into tiles of
// nearly equal height (64 rows: nine tiles of 6 and two of 5), because a lone short tile would
// leave the arithmetic units half idle.
//
// Each element of C is one sum over p = 0, 1, …, K-1 in that order, whatever tile it falls in:
// results do not depend on how the rows are shared among threads.
#pragma once

#include <algorithm>
#include <cstddef>

#include "tensor/simd.h"

namespace focus {

// A matrix in memory: element (i, j) is at data[i * row + j * column].
template <class T>
struct MatrixView {
  const T* data;
  ptrdiff_t row, column;
};

template <class T>
MatrixView<T> row_major(const T* data, ptrdiff_t row_stride) {
  return {data, row_stride, 1};
}
template <class T>
MatrixView<T> transposed(const T* data, ptrdiff_t row_stride) {
  return {data, 1, row_stride};
}

// What C holds before the products are added: zero, what it held, or one row of numbers for all
// rows.
enum class GemmStart { zero, add, bias };

namespace gemm_detail {

inline constexpr int tile_rows = 6;
inline constexpr int tile_vectors = simd_registers >= 32 ? 4 : 2;

// MR rows by NV vectors of C; `last` is how many columns of the last vector exist.
template <class T, int MR, int NV, bool Ragged>
inline void tile(int K, MatrixView<T> a, const T* b, ptrdiff_t ldb, T* c, ptrdiff_t ldc, int last,
                 GemmStart start, const T* bias) {
  constexpr int W = lanes<T>;
  const auto get = [&](const T* from, int v) {
    return Ragged && v == NV - 1 ? load_part(from + v * W, last) : load(from + v * W);
  };
  Vec<T> sum[MR][NV];
  for (int i = 0; i < MR; ++i)
    for (int v = 0; v < NV; ++v)
      sum[i][v] = start == GemmStart::zero  ? Vec<T>{}
                  : start == GemmStart::add ? get(c + i * ldc, v)
                                            : get(bias, v);
  for (int p = 0; p < K; ++p) {
    Vec<T> bp[NV];
    for (int v = 0; v < NV; ++v) bp[v] = get(b + p * ldb, v);
    for (int i = 0; i < MR; ++i) {
      const T aip = a.data[i * a.row + p * a.column];
      for (int v = 0; v < NV; ++v) sum[i][v] += aip * bp[v];
    }
  }
  for (int i = 0; i < MR; ++i)
    for (int v = 0; v < NV; ++v) {
      T* to = c + i * ldc + v * W;
      Ragged&& v == NV - 1 ? store_part(to, sum[i][v], last) : store(to, sum[i][v]);
    }
}

// All columns of `rows` rows, rows ≤ tile_rows: full tiles, then a narrower, perhaps ragged one.
template <class T, int MR>
void row_of_tiles(int N, int K, MatrixView<T> a, const T* b, ptrdiff_t ldb, T* c, ptrdiff_t ldc,
                  GemmStart start, const T* bias) {
  constexpr int W = lanes<T>;
  int j = 0;
  const auto next = [&]<int NV, bool Ragged>() {
    tile<T, MR, NV, Ragged>(K, a, b + j, ldb, c + j, ldc, Ragged ? N - j - (NV - 1) * W : W, start,
                            bias ? bias + j : nullptr);
    j += NV * W;
  };
  while (N - j >= tile_vectors * W) next.template operator()<tile_vectors, false>();
  if constexpr (tile_vectors == 4) {
    if (N - j >= 3 * W) next.template operator()<3, false>();
    if (N - j >= 2 * W) next.template operator()<2, false>();
  }
  if (N - j >= W) next.template operator()<1, false>();
  if (N - j > 0) next.template operator()<1, true>();
}

}  // namespace gemm_detail

// How many tiles cover `rows` rows, and the first row of tile `index` (0 … tiles).
inline int gemm_tiles(int rows) {
  return (rows + gemm_detail::tile_rows - 1) / gemm_detail::tile_rows;
}
inline int gemm_tile_begin(int rows, int index) {
  const int tiles = gemm_tiles(rows);
  return rows / tiles * index + std::min(index, rows % tiles);
}

// C[M,N] (+)= A[M,K] · B[K,N] for the tiles first … last-1 of C's rows.
// A has any strides (so a transposed A costs nothing); rows of B and C are contiguous with strides
// ldb, ldc. `bias` [N] is needed for GemmStart::bias only.
template <class T>
void gemm_range(int first, int last, int M, int N, int K, MatrixView<T> a, const T* b,
                ptrdiff_t ldb, T* c, ptrdiff_t ldc, GemmStart start, const T* bias = nullptr) {
  using namespace gemm_detail;
  for (int t = first; t < last; ++t) {
    const int i = gemm_tile_begin(M, t), rows = gemm_tile_begin(M, t + 1) - i;
    const MatrixView<T> at{a.data + i * a.row, a.row, a.column};
    T* ct = c + i * ldc;
    switch (rows) {
      case 1:
        row_of_tiles<T, 1>(N, K, at, b, ldb, ct, ldc, start, bias);
        break;
      case 2:
        row_of_tiles<T, 2>(N, K, at, b, ldb, ct, ldc, start, bias);
        break;
      case 3:
        row_of_tiles<T, 3>(N, K, at, b, ldb, ct, ldc, start, bias);
        break;
      case 4:
        row_of_tiles<T, 4>(N, K, at, b, ldb, ct, ldc, start, bias);
        break;
      case 5:
        row_of_tiles<T, 5>(N, K, at, b, ldb, ct, ldc, start, bias);
        break;
      default:
        row_of_tiles<T, 6>(N, K, at, b, ldb, ct, ldc, start, bias);
        break;
    }
  }
}

// The whole product on the calling thread.
template <class T>
void gemm(int M, int N, int K, MatrixView<T> a, const T* b, ptrdiff_t ldb, T* c, ptrdiff_t ldc,
          GemmStart start, const T* bias = nullptr) {
  if (M > 0) gemm_range(0, gemm_tiles(M), M, N, K, a, b, ldb, c, ldc, start, bias);
}

// out[j, i] = in[i, j] for in [rows, columns]; rows of out are `ld_out` apart, and the columns
// beyond `rows` up to ld_out are set to zero (a padded operand of gemm).
template <class T>
void transpose(int rows, int columns, const T* in, ptrdiff_t ld_in, T* out, ptrdiff_t ld_out) {
  for (int j = 0; j < columns; ++j) {
    T* row = out + j * ld_out;
    for (int i = 0; i < rows; ++i) row[i] = in[i * ld_in + j];
    for (ptrdiff_t i = rows; i < ld_out; ++i) row[i] = T(0);
  }
}

}  // namespace focus
