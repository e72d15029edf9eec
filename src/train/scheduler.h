// Independent runs: side by side on the CPU's threads, or together on devices.
//
// In scheduler.cpp, together.cpp.
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
};

// From several threads at once, but never for one run.
struct JobEvents {
  // After every epoch, with its metrics; at a stop once more, with nullopt, for each run that is
  // open, in the middle of an epoch or at its end. `seconds` is the time since the call.
  std::function<void(size_t job, Run& run, std::optional<EpochMetrics> row)> after_epoch;
  // A run ended with NaN or Inf; the others go on. If empty, that ends all runs, as every other
  // exception does.
  std::function<void(size_t job, const RunError& error)> failed = {};
  // One of several devices has failed; a line for the user.
  std::function<void(const std::string&)> device_lost = {};
};

// Brings every job's run to its number of epochs, or to an earlier end when `stop` is set. At most
// `at_once` runs are open at a time. A run has a thread to itself; while fewer runs than threads
// are left, each has several inside its steps. The next epoch goes to the open run that has done
// the smallest part of its epochs, so all that are open advance together and no thread idles while
// an epoch is left. What a run computes does not depend on any of this. The first exception that is
// not handled by `failed` ends all runs after their epoch and is thrown again.
void run_side_by_side(const std::vector<Job>& jobs, int threads, int at_once,
                      const std::atomic<bool>& stop, const JobEvents& events);

// Jobs (their numbers) that a device makes together: they have the same settings but for rates,
// what Q and K start with, epochs and seed, and data of the same sizes. All of them that stand at
// the same step are in one stepper, or half of them where the memory does not hold so many.
struct Party {
  std::vector<size_t> jobs = {};
  double share = 1;  // of a device that they fill
};

// The same on devices, which are alike. A device makes parties side by side, in their order, as
// many as their shares and its memory allow, each by a thread of its own. While an epoch is
// evaluated, the runs' next steps are made. A device that fails (DeviceLost) takes no more; its
// runs go on on another one, from where their last steps left them. DeviceLost at the end if no
// device is left for them. form: of the steps (StepSettings).
void run_together(const std::vector<Device*>& devices, const std::vector<Job>& jobs,
                  const std::vector<Party>& parties, const std::string& form,
                  const std::atomic<bool>& stop, const JobEvents& events);

// Jobs for runs that exist already and remain.
std::vector<Job> jobs_of(std::deque<Run>& runs, int epochs);

}  // namespace focus
