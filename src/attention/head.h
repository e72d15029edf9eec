// One head of one sequence: the unit of work that full.h and sparse.h compute.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/dropout.h"
#include "tensor/gemm.h"
#include "tensor/softmax.h"

namespace focus {

// Rows of q, k, v and o are `stride` apart (all heads of a token lie side by side).
template <class T>
struct Head {
  int length;        // T, the number of tokens
  int width;         // D
  ptrdiff_t stride;  // H·D
  const T *q, *k, *v;
  T scale;  // of the scores: AttentionSettings::score_scale / √D
};

template <class T>
struct HeadGradients {
  T *dq, *dk, *dv;
  bool accumulate = true;  // false: set the three, which are uninitialised (full.h only)
};

// Attention weights with dropout applied: keep[j] · scale · p[j]; p itself where keep is
// nullptr.
template <class T>
inline void apply_dropout(T* out, const T* p, const uint8_t* keep, T scale, int n) {
  if (!keep) {
    std::copy(p, p + n, out);
    return;
  }
  for (int j = 0; j < n; ++j) out[j] = T(keep[j]) * scale * p[j];
}

}  // namespace focus
