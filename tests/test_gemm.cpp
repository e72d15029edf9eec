// The matrix product against a triple loop in double, with every kind of tile and tail.
#include <doctest/doctest.h>

#include <cstring>

#include "close.h"
#include "tensor/gemm.h"

using namespace focus;
using namespace focus::test;

namespace {

// One product of M × N × K numbers in all modes. A is given with strides: as it stands, transposed,
// or inside wider rows; B and C lie in wider rows, whose rest must stay untouched.
template <class T>
std::string wrong(int M, int N, int K, bool a_transposed, GemmStart start) {
  const int lda = (a_transposed ? M : K) + 3, ldb = N + 5, ldc = N + 2;
  const auto a = as<T>(random_numbers(size_t((a_transposed ? K : M) * lda), 1));
  const auto b = as<T>(random_numbers(size_t(K * ldb), 2));
  const auto bias = as<T>(random_numbers(size_t(N), 3));
  const auto before = as<T>(random_numbers(size_t(M * ldc), 4));
  std::vector<T> c = before;
  if (start != GemmStart::add) poison(c);
  const std::vector<T> untouched = c;
  const MatrixView<T> view = a_transposed ? transposed(a.data(), lda) : row_major(a.data(), lda);
  gemm(M, N, K, view, b.data(), ldb, c.data(), ldc, start, bias.data());

  std::vector<double> wanted(size_t(M * N));
  std::vector<T> got(size_t(M * N));
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      double sum = start == GemmStart::zero  ? 0
                   : start == GemmStart::add ? double(before[size_t(i * ldc + j)])
                                             : double(bias[size_t(j)]);
      for (int p = 0; p < K; ++p)
        sum += double(a[size_t(a_transposed ? p * lda + i : i * lda + p)]) *
               double(b[size_t(p * ldb + j)]);
      wanted[size_t(i * N + j)] = sum;
      got[size_t(i * N + j)] = c[size_t(i * ldc + j)];
    }
    if (std::memcmp(&c[size_t(i * ldc + N)], &untouched[size_t(i * ldc + N)], 2 * sizeof(T)) != 0)
      return str("row ", i, ": wrote beyond the last column");
  }
  // A sum of K ≤ 70 products of size ≤ 1 rounds K times by half a unit at most.
  return difference(str(M, " x ", N, " x ", K), {M, N}, got.data(), wanted, 1 + K / 4.0);
}

template <class T>
void check(int M, int N, int K) {
  for (GemmStart start : {GemmStart::zero, GemmStart::add, GemmStart::bias})
    for (bool a_transposed : {false, true}) {
      const std::string message = wrong<T>(M, N, K, a_transposed, start);
      if (!message.empty()) FAIL_CHECK(message);
    }
}

}  // namespace

TEST_CASE_TEMPLATE("gemm: every number of rows, columns and terms up to 70", T, float, double) {
  for (int n = 1; n <= 70; ++n) {
    check<T>(n, 7, 5);
    check<T>(7, n, 5);
    check<T>(7, 33, n);
    check<T>(n, 71 - n, 1 + n * 37 % 70);
    check<T>(1 + n * 11 % 70, 1 + n * 29 % 70, n);
  }
  CHECK(true);
}

TEST_CASE_TEMPLATE("gemm: larger than any block, and nothing at all", T, float, double) {
  check<T>(131, 257, 3);
  check<T>(64, 64, 64);
  check<T>(5, 6, 0);  // an empty sum: C is its start
  check<T>(0, 6, 4);
  check<T>(6, 0, 4);
  CHECK(true);
}

TEST_CASE_TEMPLATE("gemm: the same bytes however the rows are shared out", T, float, double) {
  const int N = 37, K = 41;
  for (int M : {1, 5, 6, 7, 64, 65}) {
    const auto a = as<T>(random_numbers(size_t(M * K), 5)), b = as<T>(random_numbers(N * K, 6));
    std::vector<T> whole(size_t(M * N)), parts(whole.size()), rows(whole.size());
    gemm(M, N, K, row_major(a.data(), K), b.data(), N, whole.data(), N, GemmStart::zero);
    poison(parts);
    for (int t = gemm_tiles(M) - 1; t >= 0; --t)
      gemm_range(t, t + 1, M, N, K, row_major(a.data(), K), b.data(), N, parts.data(), N,
                 GemmStart::zero);
    CHECK(parts == whole);
    for (int i = 0; i < M; ++i)  // other tiles: one row each
      gemm(1, N, K, row_major(a.data() + i * K, K), b.data(), N, rows.data() + i * N, N,
           GemmStart::zero);
    CHECK(rows == whole);
  }
}

TEST_CASE("gemm: tiles cover the rows in order, none larger than the rest by more than one") {
  for (int M = 1; M <= 100; ++M) {
    const int tiles = gemm_tiles(M);
    CHECK(gemm_tile_begin(M, 0) == 0);
    CHECK(gemm_tile_begin(M, tiles) == M);
    for (int t = 0; t < tiles; ++t) {
      const int rows = gemm_tile_begin(M, t + 1) - gemm_tile_begin(M, t);
      if (rows < M / tiles || rows > M / tiles + 1) FAIL_CHECK("tile ", t, " of ", M, " rows");
    }
  }
}

TEST_CASE_TEMPLATE("gemm: NaN in A or B reaches exactly the sums it is part of", T, float, double) {
  const int M = 9, N = 35, K = 4;
  auto a = as<T>(random_numbers(size_t(M * K), 7)), b = as<T>(random_numbers(size_t(N * K), 8));
  a[2 * K + 1] = T(NAN);
  b[3 * N + 34] = T(NAN);
  std::vector<T> c(size_t(M * N));
  gemm(M, N, K, row_major(a.data(), K), b.data(), N, c.data(), N, GemmStart::zero);
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j)
      if (std::isnan(c[size_t(i * N + j)]) != (i == 2 || j == 34)) FAIL_CHECK(i, ", ", j);
}

TEST_CASE_TEMPLATE("transpose pads its rows with zeros", T, float, double) {
  for (int rows : {1, 3, 16, 17})
    for (int columns : {1, 2, 33}) {
      const int ld_in = columns + 2, ld_out = rows + 4;
      const auto in = as<T>(random_numbers(size_t(rows * ld_in), 9));
      std::vector<T> out(size_t(columns * ld_out));
      poison(out);
      transpose(rows, columns, in.data(), ld_in, out.data(), ld_out);
      for (int j = 0; j < columns; ++j)
        for (int i = 0; i < ld_out; ++i) {
          const T wanted = i < rows ? in[size_t(i * ld_in + j)] : T(0);
          if (!(out[size_t(j * ld_out + i)] == wanted)) FAIL_CHECK(rows, " x ", columns);
        }
    }
}

TEST_CASE_TEMPLATE("vector sums and dot products of every length", T, float, double) {
  for (int n = 0; n <= 70; ++n) {
    const auto a = as<T>(random_numbers(size_t(n), 10)), b = as<T>(random_numbers(size_t(n), 11));
    double wanted = 0;
    for (int i = 0; i < n; ++i) wanted += double(a[size_t(i)]) * double(b[size_t(i)]);
    const T got = dot(a.data(), b.data(), n);
    CHECK(difference("dot", {1}, &got, {wanted}, 1 + n / 8.0) == "");
    auto y = a;
    add_scaled(y.data(), b.data(), T(0.5), n);
    std::vector<double> sum(size_t(n), 0);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] = double(a[i]) + 0.5 * double(b[i]);
    CHECK(difference("add_scaled", {n}, y.data(), sum, 1) == "");
  }
}
