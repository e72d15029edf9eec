// Runs a study: what is missing, over the cores or on a device, in a folder or in memory only.
// 'focus train' is a study of one variant, in a folder of its own form (train/store.h).
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>

#include "study/results.h"
#include "study/shards.h"
#include "study/study.h"
#include "train/run.h"
#include "train/store.h"

namespace focus {

struct StudyOptions {
  std::filesystem::path out = {};  // empty: in memory only
  int threads = 1;
  // Only a part of the runs: they are dealt one by one, on a device in groups that are made
  // together.
  int shard = 1, shards = 1;
  // false: a run is finished before the next one of its thread begins, and few are in memory.
  // true: all runs advance side by side, for those who watch their curves.
  bool together = false;
  double keep_at_loss = 0;        // TrainPlan's
  double checkpoint_seconds = 5;  // at least this long between two checkpoints of a run
  // Where the runs are made, on devices that are alike; none: on the CPU. A device takes the runs
  // together that differ only in rates, epochs and seed, and at most `threads` of such groups are
  // made at once; `together` is of no use then.
  std::vector<Device*> devices = {};
  std::string form = "auto";  // of a step (StepSettings), where a device makes them
  // Or the name of a device of other machines, which will make them: for plan_study only.
  std::string device_elsewhere = {};
};

// How far a study is. The numbers of runs are those of the shard.
struct StudyProgress {
  const std::vector<StudiedVariant>* variants = nullptr;  // curves so far
  const StudyRun* run = nullptr;                          // about which there is news
  const EpochMetrics* row = nullptr;  // the epoch that has just ended, if one has
  bool run_is_over = false;
  int runs = 0, runs_over = 0;
  double share = 0;    // of the work that was left at the beginning, in epochs times their cost
  double seconds = 0;  // since the beginning
};

struct StudyObserver {
  const std::atomic<bool>* stop = nullptr;
  std::function<void(const StudyProgress&)> on_epoch = {};  // never twice at the same time
  // A run before its first epoch and after its last, for those who look into the models. Called by
  // the run's own thread: for different runs perhaps at the same time.
  std::function<void(const StudyRun&, Run&)> on_model = {};
  // A run after each of its epochs, likewise.
  std::function<void(const StudyRun&, Run&, const EpochMetrics&)> on_epoch_model = {};
  std::function<void(const std::string&)> on_note = {};  // a line to tell; never beside on_epoch
  // Of each variant, for StudyProgress::share, and to deal groups to devices; empty: not known.
  std::vector<EpochCost> costs = {};
};

struct StudyOutcome {
  // Are all runs of the shard over? false: interrupted, and saved if there is a folder.
  bool shard_is_over = false;
  bool is_over = false;  // all runs of the study; then results.csv and summary.csv are written
  StudyResults results;  // as far as they are known
};

// A run that ends with NaN or Inf does not end the study: that is its result, its curve stops there
// and a note of the results says so ("failed: NAME, seed S: …"). InputError, with nothing written,
// when the folder holds anything else than results of this study by this code, or another process
// works there; InputError, with all finished epochs kept up to the last checkpoint, when a file
// cannot be written.
StudyOutcome run_study(const Study& study, const StudyOptions& options,
                       const StudyObserver& observer = {});

// The runs of a shard that are there already and what is left, without running or writing anything.
struct StudyPlan {
  std::vector<size_t> runs;      // indices into study.runs
  std::vector<int> epochs_done;  // of each
  std::vector<bool> over;
};
StudyPlan plan_study(const Study& study, const StudyOptions& options);

// Writes study.csv and study.txt alone, for runs that other processes will make.
void start_study(const Study& study, const StudyOptions& options);

// Writes results.csv and summary.csv of what a folder holds now, also while the study goes on; a
// note "not over" says how many runs are missing or on their way.
StudyOutcome report_study(const Study& study, const std::filesystem::path& folder);

// Joins the folders of shards into the folder `out`, as one machine would have written it. Checks
// first: InputError, with nothing written, for parts of different studies or codes, and for runs
// that are missing or not over in all of them (also counting `out` itself).
StudyOutcome merge_study(const std::filesystem::path& out,
                         const std::vector<std::filesystem::path>& parts);

struct TrainResult {
  bool finished = false;              // false: interrupted, and saved
  std::vector<std::string> failures;  // of runs that ended with NaN or Inf; the others went on
  std::vector<EpochMetrics> metrics;  // by epoch, then seed
};

// 'focus train': starts new runs in plan.out. InputError when it already holds a run, or anything
// else is wrong with the plan; nothing has been written then. Every epoch is saved, while the next
// one is computed: a kill loses what is under way, on its way to the disk too (train/saver.h). An
// interrupt (observer.stop) finishes the step, saves and returns; resuming continues in the middle
// of the epoch, to the same bytes as if never stopped.
TrainResult train(const TrainPlan& plan, const StudyObserver& observer = {});

// Goes on with the runs in DIR, to `epochs` epochs (0, as for the others: as settings.json says),
// with `threads` threads and on `device` (empty: likewise), the first `gpus` (0: all). A finished
// run returns at once, and its files are not touched. InputError when DIR holds no run or a damaged
// one, when its data files hold other data, when it has more epochs already, and while another
// process trains there.
TrainResult resume(const std::filesystem::path& dir, int epochs, int threads,
                   const StudyObserver& observer = {}, const std::string& device = {},
                   int gpus = 0);

}  // namespace focus
