// What the variants of a study are called, and the folders of their runs.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "study/study.h"

namespace focus {

// All that makes a run what it is, as text: every setting but the number of epochs (a run with more
// of them is the same run, further on) that differs from RunSettings' own value.
std::string identity_text(const RunSettings& settings);

// "even-pairs-topk5-length30-s153476998-5f0c2b7a41d3": the settings that are not the task's
// defaults (cut short if they are many), the seed, and a hash of identity and seed.
std::string run_folder_name(const RunSettings& settings, uint64_t seed);

// Sets name, mechanism and rest. Variants that differ in more than the mechanism (attention, k,
// global tokens, score scale) and the epochs are told apart by as few columns as it takes, the
// leftmost first.
void name_variants(std::span<StudyVariant> variants, const std::vector<std::string>& columns);

}  // namespace focus
