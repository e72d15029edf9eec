// The steps of an attention call, each in a file of its own.
#pragma once

#include "cuda/ops/attention.cuh"

namespace focus::gpu {

void draw_attention_mask(const AttentionCall&, const DropoutDraw&, void* stream);

// Chooses keys where the pattern does, and computes p and o. `draw` holds the noise of the random
// pattern; in evaluation its step is ignored.
void attention_rows(const AttentionCall&, const DropoutDraw& draw, bool training, void* stream);

// The same for short sequences: o; lse of all keys, or keys and p of chosen ones, unless they are
// nullptr.
bool fits_attention_short(Pattern, int k, int T, int D);
void attention_short(const AttentionCall&, void* stream);

// The gradients, which are set. ds (B·H,nnz) is scratch.
struct AttentionGradients {
  const float* d_o;
  float *dq, *dk, *dv, *ds;
};
void attention_rows_backward(const AttentionCall&, const AttentionGradients&, void* stream);
// o of keys that are chosen and whose p is known; D up to 128.
void attention_lists(const AttentionCall&, void* stream);

void attention_keys_backward(const AttentionCall&, const AttentionGradients&, void* stream);

}  // namespace focus::gpu
