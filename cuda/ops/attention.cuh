// What the kernels of one attention call share: where its tensors lie and its lists.
#pragma once

#include "attention/pattern.h"
#include "cuda/ops/philox.cuh"

namespace focus::gpu {

// A batch head is one head of one sequence; `batch_heads` of them belong to each run. Row i of a
// batch_head has the entries begin[i] … begin[i+1]-1.
struct AttentionCall {
  Pattern pattern;
  int B, H, T, D, k, batch_heads;
  const float *q, *k_rows, *v;  // (B,T,H·D)
  float* o;
  const int* begin;
  int* keys;       // (nnz) if positional, (B·H,nnz) if chosen, nullptr: all, in order
  float* p;        // (B·H,nnz) probabilities
  float* lse;      // (B·H,T) logs of the sums of exp(scores), or nullptr
  unsigned* keep;  // (B·H,T,words) bit e of a row: its entry e is kept by dropout; or nullptr
  int nnz, words;
  float keep_scale, score_scale, scale;  // scale: score_scale / √D
  bool causal;
  bool k_places;  // keys and p have k places for each row, also where it sees fewer

  // How many keys, from the first on, a query sees.
  __device__ int seen(int query) const { return causal ? query + 1 : T; }

  __host__ __device__ size_t at(int batch_head, int row) const {
    return (size_t(batch_head / H) * size_t(T) + size_t(row)) * size_t(H * D) +
           size_t(batch_head % H * D);
  }
  __device__ const int* keys_of(int batch_head) const {
    const bool positional = pattern == Pattern::banded || pattern == Pattern::block;
    return !keys || positional ? keys : keys + size_t(batch_head) * size_t(nnz);
  }
  // 0 or the scale of what dropout keeps; 1 without dropout.
  __device__ float factor(int batch_head, int row, int e) const {
    if (!keep) return 1.f;
    const unsigned word =
        keep[(size_t(batch_head) * size_t(T) + size_t(row)) * size_t(words) + size_t(e / 32)];
    return (word >> (e % 32) & 1) ? keep_scale : 0.f;
  }
};

}  // namespace focus::gpu
