// How sharp a model's attention is, and what gradient reaches its queries and keys: lessons 01's
// and 02's measures for a whole model and one batch.
#pragma once

#include "analysis/scores.h"

namespace focus {

struct Sharpness {
  // Over all queries of all heads and blocks.
  double dispersion;   // median of δ, of all scores
  double entropy;      // mean, of the weights of the kept keys, in nats
  double sensitivity;  // mean, of the softmax over the kept scores
  // Of the mean loss of the batch, without dropout.
  double loss;
  double qk_gradient;     // ‖∂L/∂(W_q, W_k and their biases)‖₂
  double other_gradient;  // the same of all other parameters
};

// tokens (B, length), labels (B). Leaves the gradients in the model. InputError for the random
// pattern.
Sharpness measure_sharpness(Model<float>& model, const int* tokens, const int* labels, int B,
                            Workers& workers);

}  // namespace focus
