#include "ops/layer_norm.h"

#include <cmath>

#include "tensor/simd.h"

namespace focus {

namespace {

constexpr int rows_per_piece = 64;

template <class T>
T sum_of(const T* x, int n) {
  Vec<T> total{};
  int i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) total += load(x + i);
  if (i < n) total += load_part(x + i, n - i);
  return sum<T>(total);
}

// One row; returns 1 / sqrt(variance + epsilon).
template <class T>
T normalise_row(T* y, const T* x, int C, T epsilon) {
  const T mean = sum_of(x, C) / T(C);
  for (int c = 0; c < C; ++c) y[c] = x[c] - mean;
  const T rstd = T(1) / std::sqrt(dot(y, y, C) / T(C) + epsilon);
  for (int c = 0; c < C; ++c) y[c] *= rstd;
  return rstd;
}

// y depends on x through x itself, the mean and the variance; their three contributions sum to
// dx = rstd · (dy - mean(dy) - y · mean(dy · y)).
template <class T>
void normalise_row_backward(T* dx, const T* dy, const T* y, T rstd, int C) {
  //@ gap 02 layer-norm-backward
  const T mean_dy = sum_of(dy, C) / T(C);
  const T mean_dy_y = dot(dy, y, C) / T(C);
  for (int c = 0; c < C; ++c) dx[c] += rstd * (dy[c] - mean_dy - y[c] * mean_dy_y);
  //@ end
}

}  // namespace

template <class T>
Tensor<T> layer_norm(Tape<T>& tape, const Tensor<T>& x, double epsilon) {
  const int C = x.channels(), M = x.rows();
  const Tensor<T> y = tape.make(x.shape);
  T* rstd = tape.template memory<T>(size_t(M));
  tape.workers().run_ranges(M, rows_per_piece, [=](int begin, int end) {
    for (ptrdiff_t m = begin; m < end; ++m)
      rstd[m] = normalise_row(y.data + m * C, x.data + m * C, C, T(epsilon));
  });
  tape.record(y, [=, &tape] {
    T* dx = tape.gradient(x);
    const T* dy = tape.gradient(y);
    if (!dx) return;
    tape.workers().run_ranges(M, rows_per_piece, [=](int begin, int end) {
      for (ptrdiff_t m = begin; m < end; ++m)
        normalise_row_backward(dx + m * C, dy + m * C, y.data + m * C, rstd[m], C);
    });
  });
  return y;
}

template Tensor<float> layer_norm(Tape<float>&, const Tensor<float>&, double);
template Tensor<double> layer_norm(Tape<double>&, const Tensor<double>&, double);

}  // namespace focus
