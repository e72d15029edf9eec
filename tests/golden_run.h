// Compares with the authors' model for tests.
#pragma once

#include "train/golden.h"

namespace focus::test {

// Empty if tests/golden/NAME.safetensors is met, else what is off: of the forward pass the first
// number, else the gradient that the backward pass meets first.
inline std::string wrong_golden(const std::string& name) {
  const std::vector<GoldenError> all =
      check_golden(Safetensors::read("tests/golden/" + name + ".safetensors"), 1);
  const GoldenError* worst = nullptr;
  int off = 0;
  for (const GoldenError& e : all) {
    if (e.ok()) continue;
    ++off;
    const bool forward = e.name == "logits" || e.name == "loss",
               gradient = e.name.starts_with("grad.");
    if (!worst || (gradient && worst->name != "logits" && worst->name != "loss")) worst = &e;
    if (forward) break;
  }
  if (!worst) return "";
  return str(name, ": ", worst->name, " is off by ", worst->error, ", limit ", worst->limit,
             worst->name == "logits" || worst->name == "loss"
                 ? str(": the forward pass differs")
                 : str(": nearest to the loss of ", off, " numbers that are off"));
}

}  // namespace focus::test
