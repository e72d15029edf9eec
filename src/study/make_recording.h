// Makes a recording (recording.h) of a study's results.
#pragma once

#include <vector>

#include "study/recording.h"
#include "study/study.h"

namespace focus {

// The table's variants, found in `results` by their settings; they keep the table's names.
// InputError names a variant that is recorded with other epochs or without one of its seeds, and,
// unless `partial`, one that is not there at all, with the recorded one that comes nearest.
Recording make_recording(const Study& table, const std::vector<StudyResults>& results,
                         bool partial);

}  // namespace focus
