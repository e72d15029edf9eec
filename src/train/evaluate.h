// How well a model does on rows that it need not have seen.
#pragma once

#include <atomic>
#include <optional>
#include <vector>

#include "train/stepper.h"

namespace focus {

// Loss and accuracy of a model on rows, a mean over all that it says about them; no dropout. The
// predicted class is the one with the largest logit (the lowest of equal ones). `stop`, if given
// and set, ends it early: nullopt. `logits`, if given, receives all of them, as Model::forward has
// them.
std::optional<Evaluation> evaluate(Model<float>& model, Tape<float>& tape, const PaddedData& data,
                                   const std::atomic<bool>* stop = nullptr,
                                   std::vector<float>* logits = nullptr);

}  // namespace focus
