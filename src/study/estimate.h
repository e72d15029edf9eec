// How long will a study take? A few real steps of each kind of run tell.
#pragma once

#include <vector>

#include "study/study.h"

namespace focus {

// Seconds that an epoch of each variant takes on one thread, training and evaluation. Variants that
// differ in nothing that costs time (rates, dropout, …) are measured once. Each takes about a
// quarter of a second, or three epochs of one step where a step takes longer.
std::vector<double> measure_epochs(const Study& study);

}  // namespace focus
