#include "ops/linear.h"

#include "tensor/gemm.h"

namespace focus {

namespace {

constexpr int rows_per_piece = 24;  // four register tiles: some 2 µs of work at 64 × 64

// dx (M,in) += dy (M,out) · W (out,in);  dW (out,in) += dyᵀ · x;  db (out) += column sums of dy.
// The three are independent, so their pieces share one phase.
template <class T>
void linear_backward(Workers& workers, int M, int in, int out, const T* x, const T* w, const T* dy,
                     T* dx, T* dw, T* db) {
  const int dx_pieces = dx ? (M + rows_per_piece - 1) / rows_per_piece : 0;
  const int dw_pieces = dw ? gemm_tiles(out) : 0;
  workers.run(dw_pieces + dx_pieces + (db ? 1 : 0), [=](int piece, int) {
    //@ gap 02 linear-backward
    if (piece < dw_pieces) {  // the longest pieces first
      gemm_range(piece, piece + 1, out, in, M, transposed(dy, out), x, in, dw, in, GemmStart::add);
    } else if (piece < dw_pieces + dx_pieces) {
      const int m = (piece - dw_pieces) * rows_per_piece, rows = std::min(rows_per_piece, M - m);
      gemm(rows, in, out, row_major(dy + ptrdiff_t{m} * out, out), w, in, dx + ptrdiff_t{m} * in,
           in, GemmStart::add);
    } else {
      for (int m = 0; m < M; ++m) add_scaled(db, dy + ptrdiff_t{m} * out, T(1), out);
    }
    //@ end
  });
}

}  // namespace

template <class T>
Tensor<T> linear(Tape<T>& tape, const Tensor<T>& x, const Tensor<T>& weight,
                 const Tensor<T>& bias) {
  const int in = x.channels(), out = weight.shape[0], M = x.rows();
  require_shape("linear", "weight", weight.shape, {out, in});
  require_shape("linear", "bias", bias.shape, {out});
  const Tensor<T> y = tape.make(x.shape.with_last(out));

  // gemm wants rows of its right operand contiguous: Wᵀ, made anew since W changes every step.
  T* wt = tape.template memory<T>(size_t(in) * size_t(out));
  transpose(out, in, weight.data, in, wt, out);
  tape.workers().run_ranges(M, rows_per_piece, [&](int m, int end) {
    gemm(end - m, out, in, row_major(x.data + ptrdiff_t{m} * in, in), wt, out,
         y.data + ptrdiff_t{m} * out, out, GemmStart::bias, bias.data);
  });

  tape.record(y, [=, &tape] {
    linear_backward(tape.workers(), M, in, out, x.data, weight.data, tape.gradient(y),
                    tape.gradient(x), tape.gradient(weight), tape.gradient(bias));
  });
  return y;
}

template Tensor<float> linear(Tape<float>&, const Tensor<float>&, const Tensor<float>&,
                              const Tensor<float>&);
template Tensor<double> linear(Tape<double>&, const Tensor<double>&, const Tensor<double>&,
                               const Tensor<double>&);

}  // namespace focus
