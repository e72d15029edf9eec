// y = x Wᵀ + b: every row of x times the weight matrix, plus the bias.
#pragma once

#include "tensor/tape.h"

namespace focus {

// x: (…, in), weight: (out, in) as in PyTorch's checkpoints, bias: (out) → (…, out).
template <class T>
Tensor<T> linear(Tape<T>& tape, const Tensor<T>& x, const Tensor<T>& weight, const Tensor<T>& bias);

}  // namespace focus
