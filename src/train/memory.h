// Is a run within this machine's memory? Asked before anything is allocated: a system that hands
// out more than it has ends the program later, in the middle of the work.
#pragma once

#include "model/model.h"
#include "train/optimizer.h"

namespace focus {

// Bytes that `runs` models, trained `at_once` at a time, need at the very least: weights, their
// gradients and the optimiser's moments, and the activations kept for backward, for `batch`
// sequences.
double least_bytes(const ModelSettings& settings, OptimizerKind optimizer, int batch, int runs,
                   int at_once);

// Bytes of memory that this process may use; infinity if the system does not say.
double machine_bytes();

// Throws InputError when the first exceeds the second.
void check_memory(const ModelSettings& settings, OptimizerKind optimizer, int batch, int runs,
                  int at_once);

}  // namespace focus
