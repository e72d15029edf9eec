// Scaled dot-product attention under a pattern: softmax(C · Q Kᵀ / √D over the kept keys) V, for
// every sequence and head (Vaswani et al. 2017, equation 1; C, usually 1, is the settings'
// score_scale; the patterns are in pattern.h).
//
// Full attention computes all T × T scores with matrix products (full.h). The sparse patterns hold
// a list of keys for each query and touch only those (sparse.h). No gradient flows through the
// choice.
#pragma once

#include "attention/pattern.h"
#include "tensor/tape.h"

namespace focus {

// q, k, v: (B,T,H·D), head h in the channels h·D … (h+1)·D-1 → (B,T,H·D).
// Throws InputError where shapes or settings disagree, or an input wants no gradient while the tape
// records.
template <class T>
Tensor<T> attention(Tape<T>& tape, const Tensor<T>& q, const Tensor<T>& k, const Tensor<T>& v,
                    const AttentionSettings& settings);

}  // namespace focus
