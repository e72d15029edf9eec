// The mean over a sequence's tokens, PAD and global tokens included, as in the paper's model.
#pragma once

#include "tensor/tape.h"

namespace focus {

// x: (B,T,C) → (B,C).
template <class T>
Tensor<T> mean_tokens(Tape<T>& tape, const Tensor<T>& x);

}  // namespace focus
