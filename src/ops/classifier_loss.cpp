#include "ops/classifier_loss.h"

#include <cmath>

#include "ops/cross_entropy.h"
#include "tensor/softmax.h"

namespace focus {

namespace {

// Turns a row of logits into its gradient, factor · (softmax - [label]); returns its loss.
template <class T>
double loss_and_gradient(T* row, int N, int label, T factor) {
  //@ gap 15 loss-and-gradient
  const bool exact = N <= most_classes_in_double;
  double loss = exact ? row_cross_entropy(row, N, label) : double(largest_of(row, N) - row[label]);
  softmax_row(row, row, N, T(1));
  // The largest logit's probability is 1 / Σ exp(logit - largest).
  if (!exact) loss -= std::log(double(largest_of(row, N)));
  row[label] -= T(1);
  for (int n = 0; n < N; ++n) row[n] *= factor;
  return loss;
  //@ end
}

}  // namespace

template <class T>
Tensor<T> classifier_loss(Tape<T>& tape, const Tensor<T>& x, const Tensor<T>& weight,
                          const Tensor<T>& bias, const int* labels, T* all_logits) {
  using namespace classifier_detail;
  const int M = x.rows(), C = x.channels(), N = weight.shape[0];
  require_shape("classifier_loss", "weight", weight.shape, {N, C});
  require_shape("classifier_loss", "bias", bias.shape, {N});
  if (M == 0 || N == 0) fail_input("classifier_loss: ", M, " rows, ", N, " classes");
  for (int m = 0; m < M; ++m)
    if (labels[m] < 0 || labels[m] >= N)
      fail_input("classifier_loss: label ", labels[m], " of row ", m, " is not below ", N);

  const Tensor<T> loss = tape.make({1});
  const bool recording = tape.recording();
  const int chunk = chunk_rows(M, N);
  const T* wt = transposed_weight(tape, weight);
  T* logits = tape.template memory<T>(size_t(chunk) * size_t(N));  // then their gradient
  double* losses = tape.template memory<double>(size_t(chunk));
  // The gradients, as long as that of the loss is 1.
  T* dx = recording ? tape.template memory<T>(x.size()) : nullptr;
  T* dw = recording ? tape.template memory<T>(weight.size()) : nullptr;
  T* db = recording ? tape.template memory<T>(size_t(N)) : nullptr;
  if (recording) std::fill(db, db + N, T(0));

  double total = 0;  // in double: a mean of many
  for (int first = 0; first < M; first += chunk) {
    const int rows = std::min(chunk, M - first);
    tape.workers().run_ranges(rows, rows_per_piece, [=](int m, int end) {
      T* own = logits + ptrdiff_t{m} * N;
      gemm(end - m, N, C, row_major(x.data + ptrdiff_t{first + m} * C, C), wt, N, own, N,
           GemmStart::bias, bias.data);
      if (all_logits)
        std::copy(own, own + ptrdiff_t{end - m} * N, all_logits + ptrdiff_t{first + m} * N);
      for (int i = m; i < end; ++i)
        losses[i] = loss_and_gradient(logits + ptrdiff_t{i} * N, N, labels[first + i], T(1) / T(M));
      if (recording)
        gemm(end - m, C, N, row_major(own, N), weight.data, C, dx + ptrdiff_t{first + m} * C, C,
             GemmStart::zero);
    });
    for (int m = 0; m < rows; ++m) total += losses[m];
    if (!recording) continue;
    const GemmStart start = first == 0 ? GemmStart::zero : GemmStart::add;
    const int tiles = gemm_tiles(N);
    tape.workers().run(tiles + 1, [=](int piece, int) {
      if (piece < tiles)
        gemm_range(piece, piece + 1, N, C, rows, transposed(logits, N),
                   x.data + ptrdiff_t{first} * C, C, dw, C, start);
      else
        for (int m = 0; m < rows; ++m) add_scaled(db, logits + ptrdiff_t{m} * N, T(1), N);
    });
  }
  loss.data[0] = T(total / M);

  tape.record(loss, [=, &tape] {
    const T factor = tape.gradient(loss)[0];
    const auto hand_on = [&](const Tensor<T>& to, const T* d) {
      if (T* sum = tape.gradient(to)) add_scaled(sum, d, factor, int(to.size()));
    };
    hand_on(x, dx), hand_on(weight, dw), hand_on(bias, db);
  });
  return loss;
}

template Tensor<float> classifier_loss(Tape<float>&, const Tensor<float>&, const Tensor<float>&,
                                       const Tensor<float>&, const int*, float*);
template Tensor<double> classifier_loss(Tape<double>&, const Tensor<double>&, const Tensor<double>&,
                                        const Tensor<double>&, const int*, double*);

}  // namespace focus
