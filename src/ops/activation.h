// The activations of the feed-forward half: ReLU, GELU (exact, with erf) and Mish.
#pragma once

#include <string_view>

#include "tensor/tape.h"

namespace focus {

enum class Activation { relu, gelu, mish };

// Names as on the command line and in checkpoints: relu, gelu, mish. Unknown: InputError.
Activation activation_of(std::string_view name);
const char* name_of(Activation activation);

// relu(x) = max(x, 0); gelu(x) = x·Φ(x), Φ the normal distribution function (Hendrycks and Gimpel
// 2016); mish(x) = x·tanh(ln(1 + eˣ)) (Misra 2019). The derivative of relu at 0 is 0, as in
// PyTorch.
template <class T>
Tensor<T> activate(Tape<T>& tape, const Tensor<T>& x, Activation activation);

}  // namespace focus
