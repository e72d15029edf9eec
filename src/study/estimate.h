// How long will a study take? A few real steps of each kind of run tell.
#pragma once

#include <vector>

#include "study/shards.h"
#include "study/study.h"
#include "train/stepper.h"

namespace focus {

// What an epoch of each variant costs, on one thread or, if it is given, on a device. Variants that
// differ in nothing that costs time (rates, factors, dropout, …) are measured once. Each takes
// about a quarter of a second, or a few epochs of one step where a step takes longer.
std::vector<EpochCost> measure_epochs(const Study& study, Device* device = nullptr);

}  // namespace focus
