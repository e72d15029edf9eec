// Token embedding with sinusoidal positions, the model's first layer.
#pragma once

#include "tensor/tape.h"

namespace focus {

// position_table[t, 2i] = sin(t / 10000^(2i/C)), [t, 2i+1] = cos of the same (Vaswani et al. 2017,
// section 3.5), for T positions and C channels; C may be odd.
template <class T>
void fill_positions(T* position_table, int length, int channels);

// y[b,t] = table[tokens[b,t]] · √C + positions[t].
// tokens: (B,T) ids below the table's rows (checked: InputError), table: (V,C), positions: (T,C)
// without gradient → (B,T,C). The tokens must stay in memory until backward.
template <class T>
Tensor<T> embedding(Tape<T>& tape, const int* tokens, int B, const Tensor<T>& table,
                    const Tensor<T>& positions);

}  // namespace focus
