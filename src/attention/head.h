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
  bool causal = false;
  int queries = length;  // computed, from q on (full.h only)

  // How many keys, from the first on, a query sees.
  int seen(int query) const { return causal ? query + 1 : length; }
  // How many all queries before it see.
  ptrdiff_t seen_before(int query) const {
    return causal ? ptrdiff_t{query} * (query + 1) / 2 : ptrdiff_t{query} * length;
  }
};

template <class T>
struct HeadGradients {
  T *dq, *dk, *dv;
  bool accumulate = true;  // false: set the three, which are uninitialised (full.h only)
};

// Attention weights with dropout applied, of the n keys that a query sees: keep[j] · scale · p[j];
// 0 for those after them, up to `all`.
template <class T>
inline void apply_dropout(T* out, const T* p, const uint8_t* keep, T scale, int n, int all) {
  for (int j = 0; j < n; ++j) out[j] = T(keep[j]) * scale * p[j];
  std::fill(out + n, out + all, T(0));
}

}  // namespace focus
