// The rule by which the lessons that vary a setting judge each of its values, and the words in
// which they tell the outcome.
#pragma once

#include <string>

#include "study/summary.h"

namespace focus {

struct Judgement {
  bool reproduced = false;
  std::string words;
};

// Reproduced if `variant` needs fewer epochs to its target than `baseline` with every seed, and its
// median is at most `share` of the baseline's. A seed that never arrives counts as infinitely many
// epochs, and a run that ended with NaN as one that never arrived. Both need the same seeds.
Judgement judge_epochs(const Outcomes& variant, const Outcomes& baseline, double share);
Judgement judge_epochs(const StudiedVariant& variant, const StudiedVariant& baseline, double share);

}  // namespace focus
