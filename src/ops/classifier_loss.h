// The last linear layer and the loss of what it says, as one operation: the logits of a vocabulary
// of thousands of words for thousands of positions, and their gradient, are never there at once.
//
// It takes some rows at a time: their logits, their loss, the gradient of these logits, and what
// that adds to the gradients of x, W and b; then the next rows use the same memory. So the forward
// makes the gradients, too, and the backward only hands them on.
#pragma once

#include <algorithm>

#include "tensor/gemm.h"
#include "tensor/tape.h"

namespace focus {

// The mean over all M rows of -ln softmax(x Wᵀ + b)[label]. x: (…,C), M rows in all, weight: (N,C),
// bias: (N), labels: (M) in 0 … N-1 (checked: InputError) → (1). `logits`, if given, receives all
// of them, (M,N).
template <class T>
Tensor<T> classifier_loss(Tape<T>& tape, const Tensor<T>& x, const Tensor<T>& weight,
                          const Tensor<T>& bias, const int* labels, T* logits = nullptr);

// For evaluation: calls use(first, rows, logits) with the logits (rows,N) of some rows, again and
// again, until all have been there.
template <class T, class Use>
void for_logits(Tape<T>& tape, const Tensor<T>& x, const Tensor<T>& weight, const Tensor<T>& bias,
                const Use& use);

namespace classifier_detail {

inline constexpr int rows_per_piece = 24;  // four register tiles

// Rows whose logits are there at once: 4 MiB in float, but enough rows for several threads.
inline int chunk_rows(int rows, int N) {
  return std::min(rows,
                  std::max((1 << 20) / N, 4 * rows_per_piece) / rows_per_piece * rows_per_piece);
}

// Wᵀ (C,N), which is what gemm wants.
template <class T>
T* transposed_weight(Tape<T>& tape, const Tensor<T>& weight) {
  const int N = weight.shape[0], C = weight.shape[1];
  T* wt = tape.template memory<T>(weight.size());
  tape.workers().run_ranges(C, 16, [=](int begin, int end) {
    transpose(N, end - begin, weight.data + begin, C, wt + ptrdiff_t{begin} * N, N);
  });
  return wt;
}

}  // namespace classifier_detail

template <class T, class Use>
void for_logits(Tape<T>& tape, const Tensor<T>& x, const Tensor<T>& weight, const Tensor<T>& bias,
                const Use& use) {
  using namespace classifier_detail;
  const int M = x.rows(), C = x.channels(), N = weight.shape[0], chunk = chunk_rows(M, N);
  const T* wt = transposed_weight(tape, weight);
  T* logits = tape.template memory<T>(size_t(chunk) * size_t(N));
  for (int first = 0; first < M; first += chunk) {
    const int rows = std::min(chunk, M - first);
    tape.workers().run_ranges(rows, rows_per_piece, [=](int m, int end) {
      gemm(end - m, N, C, row_major(x.data + ptrdiff_t{first + m} * C, C), wt, N,
           logits + ptrdiff_t{m} * N, N, GemmStart::bias, bias.data);
    });
    use(first, rows, static_cast<const T*>(logits));
  }
}

}  // namespace focus
