// Independent runs: side by side on the CPU's threads, or together on a device.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "error.h"
#include "train/run.h"

namespace focus {

// A run that is made when its turn comes, and dropped when it is done: of hundreds of runs only a
// few are in memory at a time. `open` is called from the thread that will run the first epoch.
struct Job {
  int epochs = 0;  // to bring the run to, counted from its beginning
  std::function<std::shared_ptr<Run>()> open = {};
  // Jobs of one group have the same settings but for rates, what Q and K start with, epochs and
  // seed, and data of the same sizes: a device takes their runs together.
  std::string group = {};
};

// From several threads at once, but never for one run.
struct JobEvents {
  // After every epoch, with its metrics; at a stop once more, with nullopt, for each run that is
  // open, in the middle of an epoch or at its end. `seconds` is the time since the call.
  std::function<void(size_t job, Run& run, std::optional<EpochMetrics> row)> after_epoch;
  // A run ended with NaN or Inf; the others go on. If empty, that ends all runs, as every other
  // exception does.
  std::function<void(size_t job, const RunError& error)> failed = {};
};

// Brings every job's run to its number of epochs, or to an earlier end when `stop` is set. At most
// `at_once` runs are open at a time. A run has a thread to itself; while fewer runs than threads
// are left, each has several inside its steps. The next epoch goes to the open run that has done
// the smallest part of its epochs, so all that are open advance together and no thread idles while
// an epoch is left. What a run computes does not depend on any of this. The first exception that is
// not handled by `failed` ends all runs after their epoch and is thrown again.
void run_side_by_side(const std::vector<Job>& jobs, int threads, int at_once,
                      const std::atomic<bool>& stop, const JobEvents& events);

// The same on a device: group after group, all runs of a group that stand at the same step in one
// stepper, up to `at_once` of them, and fewer where its memory does not hold so many. form: of
// their steps (StepSettings).
void run_together(Device& device, const std::vector<Job>& jobs, int at_once,
                  const std::string& form, const std::atomic<bool>& stop, const JobEvents& events);

// Jobs for runs that exist already and remain.
std::vector<Job> jobs_of(std::deque<Run>& runs, int epochs);

}  // namespace focus
