// Golden files: weights, inputs and what the authors' model computes from them in double precision.
// `focus check` recomputes all of it in float32 and compares. Of a causal model a sequence has a
// label for each token: the next token.
#pragma once

#include <string>
#include <vector>

#include "files/safetensors.h"
#include "train/stepper.h"

namespace focus {

// One compared quantity: the largest error over its elements, and what is allowed.
struct GoldenError {
  std::string name;  // "logits", "grad.linear.bias", …
  double error, limit;
  bool ok() const { return error <= limit; }  // false for NaN
};

// The limits (absolute): logits 1e-5; loss and gradient norm 2e-6 of the expected value; each
// gradient tensor 1e-5 of its largest magnitude plus 1e-7 of the gradient norm (the gradient of
// every W_k bias is zero in exact arithmetic); each stepped weight 1e-5 of its tensor's largest
// magnitude. On the CPU, or on a device. InputError for a file that is not a golden file.
std::vector<GoldenError> check_golden(const Safetensors& file, int threads,
                                      Device* device = nullptr);

}  // namespace focus
