// The loss: softmax of the logits, then minus the logarithm of the right class's probability. The
// trainer's step takes it together with the classifier (classifier_loss.h).
#pragma once

#include "tensor/tape.h"

namespace focus {

// The mean over the batch of -ln softmax(logits[b])[labels[b]]. logits: (B,N), labels: (B) in
// 0 … N-1 (checked: InputError) → (1). The labels must stay in memory until backward.
template <class T>
Tensor<T> cross_entropy(Tape<T>& tape, const Tensor<T>& logits, const int* labels);

// Of so few classes the loss is in double, so that builds agree on it to many digits. For a
// vocabulary that would take as long as the matrix products.
inline constexpr int most_classes_in_double = 256;

// -ln softmax(logits)[label] of one row of N logits.
template <class T>
double row_cross_entropy(const T* logits, int N, int label);

}  // namespace focus
