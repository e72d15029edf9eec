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
    //@ begin 02 linear-backward points=6
    //@ plan This runs once for each piece. x is (M,in), dy (M,out), w (out,in), without gaps.
    //@ plan 1. piece < dw_pieces: tile number `piece` of dW += dyᵀ x (gemm_range, GemmStart::add).
    //@ plan 2. The next dx_pieces pieces, counted from 0: rows_per_piece rows of dx += dy w
    //@ plan    (gemm); the last piece may have fewer rows.
    //@ plan 3. The last piece: db += the sum of dy's rows (add_scaled).
    //@ hint 1 Each of dW, dx and db may hold something already, from another use of the same
    //@ hint 1 tensor or from an earlier part of the batch. What happens to it if this function
    //@ hint 1 sets where it should add?
    //@ hint 2 README, "Reverse mode": the three formulas of a linear layer. gemm_range and gemm
    //@ hint 2 are explained in src/tensor/gemm.h; transposed(dy, out) and row_major(...) make
    //@ hint 2 their left operands.
    //@ hint 3 if piece < dw_pieces:
    //@ hint 3   gemm_range of tiles piece to piece + 1: out x in, inner M; transposed(dy, out)
    //@ hint 3     times x (rows `in` apart) into dw (rows `in` apart), add
    //@ hint 3 else if piece < dw_pieces + dx_pieces:
    //@ hint 3   m = (piece - dw_pieces) * rows_per_piece
    //@ hint 3   rows = the smaller of rows_per_piece and M - m
    //@ hint 3   gemm: rows x in, inner out; row_major(dy + m * out, out) times w (rows `in` apart)
    //@ hint 3     into dx + m * in (rows `in` apart), add
    //@ hint 3 else:
    //@ hint 3   for m from 0 to M - 1: add_scaled db += 1 times (dy + m * out), out numbers
    //@ notice Every number of dW, dx and db is summed by one thread, in one order: the result does
    //@ notice not depend on how many threads there are.
    if (piece < dw_pieces) {  // the longest pieces first
      //@ mutant linear-overwrites-weight: sets the weight's gradient where it should add
      //~ gemm_range(piece, piece + 1, out, in, M, transposed(dy, out), x, in, dw, in,
      //~            GemmStart::zero);
      gemm_range(piece, piece + 1, out, in, M, transposed(dy, out), x, in, dw, in, GemmStart::add);
    } else if (piece < dw_pieces + dx_pieces) {
      const int m = (piece - dw_pieces) * rows_per_piece, rows = std::min(rows_per_piece, M - m);
      gemm(rows, in, out, row_major(dy + ptrdiff_t{m} * out, out), w, in, dx + ptrdiff_t{m} * in,
           //@ mutant linear-overwrites-input: sets the input's gradient where it should add
           //~ in, GemmStart::zero);
           in, GemmStart::add);
    } else {
      //@ mutant(0) linear-overwrites-bias: sets the bias's gradient where it should add
      //~ std::fill(db, db + out, T(0));
      //@ mutant linear-bias-one-row: the bias hears of the first row only
      //~ add_scaled(db, dy, T(1), out);
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
