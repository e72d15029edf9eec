// Layer normalisation without affine parameters (the paper's model has none).
#pragma once

#include "tensor/tape.h"

namespace focus {

// y = (x - mean) / sqrt(variance + epsilon), each over the C channels of one token; the variance
// divides by C. x: (…, C) → (…, C). With epsilon = 0 a token whose channels are all equal gives
// NaN, as in the authors' first block; the trainer stops on it.
template <class T>
Tensor<T> layer_norm(Tape<T>& tape, const Tensor<T>& x, double epsilon);

}  // namespace focus
