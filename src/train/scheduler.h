// Independent runs side by side on several threads.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <optional>

#include "train/run.h"

namespace focus {

// Called after every epoch of every run, with its metrics, and once with nullopt for a run that was
// interrupted in the middle of an epoch. From several threads at once, but never for one run.
using AfterEpoch = std::function<void(size_t run, std::optional<EpochMetrics> row)>;

// Brings all runs to `epochs` epochs, or to an earlier end when `stop` is set. Each run has a
// thread to itself; a single run uses all threads inside its steps. The next epoch always goes to
// the free run that is furthest behind, so all advance together and no thread idles while an epoch
// is left. What a run computes does not depend on any of this. `seconds` in the rows is the time
// since the call. The first exception of a run or of `after` ends all runs after their epoch and is
// thrown again.
void run_side_by_side(std::deque<Run>& runs, int epochs, int threads, const std::atomic<bool>& stop,
                      const AfterEpoch& after);

}  // namespace focus
