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

// topk(5) against full by that rule at each of the results' `rest`s: at how many it is reproduced,
// and "REST: words" of each, full stops between them.
struct Judgements {
  size_t reproduced = 0;
  std::string words;
};
Judgements judge_each_setting(const StudyResults& results, double share);

}  // namespace focus
