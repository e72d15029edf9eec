// Dropout: each number is set to zero with probability p, the others are scaled by 1 / (1 - p).
#pragma once

#include "tensor/tape.h"

namespace focus {

// The mask of one use of dropout. Element i is dropped if the i-th 16-bit random number of the
// stream (seed, dropout, step, site) is below p · 2¹⁶: a pure function, the same for any thread
// count. So p is rounded to a multiple of 2⁻¹⁶ (0.01 becomes 0.009995), which halves the random
// bits.
struct DropoutMask {
  Noise noise;
  uint32_t site = 0;
  double p = 0;

  // keep[j] = 1 or 0 for the elements begin … begin+count-1.
  void draw(uint8_t* keep, uint64_t begin, size_t count) const;
  double scale() const { return 1.0 / (1.0 - p); }
};

// Takes the next site of the pass's noise. Call it only while dropout is active (noise on and p >
// 0).
template <class T>
DropoutMask next_dropout_mask(Tape<T>& tape, double p);
template <class T>
bool dropout_active(Tape<T>& tape, double p) {
  return tape.noise().on && p > 0;
}

// x of any shape → same shape. In evaluation, or with p = 0, x itself. 0 ≤ p < 1.
template <class T>
Tensor<T> dropout(Tape<T>& tape, const Tensor<T>& x, double p);

// residual + dropout(x): the end of both halves of a transformer block.
template <class T>
Tensor<T> add_dropout(Tape<T>& tape, const Tensor<T>& residual, const Tensor<T>& x, double p);

}  // namespace focus
