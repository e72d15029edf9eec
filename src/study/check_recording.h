// Is a recording that was read all there, and of what the lesson's table asks for?
#pragma once

#include <string>

#include "study/recording.h"
#include "study/study.h"

namespace focus {

// InputError if a seed is missing or there twice, epochs have no curve, or a number is none; a run
// that ended with NaN or Inf is short, and a note says so. `folder` is for the message.
void check_whole(const Recording& recording, const std::string& folder);

// InputError if a variant has settings or lacks a seed of `table`. It may hold less: rows of the
// table that have not been run.
void check_against(const Recording& recording, const Study& table, const std::string& folder);

}  // namespace focus
