#include "study/engine.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "clock.h"
#include "study/names.h"
#include "study/store.h"
#include "train/memory.h"
#include "train/run_group.h"

namespace focus {

namespace fs = std::filesystem;

namespace {

// Data sets, made once for all runs that use the same and dropped with the last of them.
class DataShelf {
 public:
  std::shared_ptr<const RunData> get(const RunSettings& s, uint64_t seed) {
    const bool from_files = !s.train_data.empty() && !s.val_data.empty();
    const std::string key =
        str(s.task, "|", s.train_data, "|", s.val_data, "|", s.train_size, "|", s.val_size, "|",
            s.length, "|", uses_k(s.attention) ? s.k : 0, "|", s.global_tokens, "|",
            from_files ? 0 : data_seed(find_task(s.task), seed));
    const std::lock_guard lock(mutex_);
    std::shared_ptr<const RunData> data = shelf_[key].lock();
    if (!data) shelf_[key] = data = make_run_data(s, seed);
    return data;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<const RunData>> shelf_;
};

// What the runs that a device takes together have in common.
std::string group_of(RunSettings s) {
  s.lr = s.lr_decay = 1;
  return identity_text(s);
}

constexpr int most_together = 64;  // runs in a device's memory at the same time

std::vector<size_t> runs_of_shard(const Study& study, const StudyOptions& o) {
  if (o.shards < 1 || o.shard < 1 || o.shard > o.shards)
    fail_input("--shard ", o.shard, "/", o.shards, ": give I/N with I from 1 to N");
  std::vector<size_t> runs;
  for (size_t i = size_t(o.shard) - 1; i < study.runs.size(); i += size_t(o.shards))
    runs.push_back(i);
  return runs;
}

class StudyRunner {
 public:
  StudyRunner(const Study& study, const StudyOptions& options, const StudyObserver& observer)
      : study_(study),
        options_(options),
        observer_(observer),
        store_(options.out),
        in_folder_(!options.out.empty()),
        shard_(runs_of_shard(study, options)),
        states_(study.runs.size()) {
    results_.variants = empty_variants(study);
  }

  StudyOutcome go() {
    const Origin origin = origin_of_this_program(study_, options_.device);
    if (!in_folder_) {
      results_.notes = notes_of(study_, origin);
      check_sizes();
      train();
      return outcome();
    }
    store_.check(study_, origin);
    FolderLock lock = FolderLock::make(options_.out);
    store_.check(study_, origin);  // another process may have begun there since
    read_states();
    check_sizes();
    const bool anything_left =
        std::any_of(shard_.begin(), shard_.end(), [&](size_t i) { return !states_[i].over; });
    if (anything_left || !store_.exists()) store_.begin(study_, origin, lock);
    lock.keep();
    train();
    results_.notes = notes_of(study_, store_.origin());
    StudyOutcome all = outcome();
    if (all.is_over) store_.write_results(study_, all.results);
    return all;
  }

  StudyPlan plan() {
    if (in_folder_) {
      store_.check(study_, options_.device_elsewhere.empty()
                               ? origin_of_this_program(study_, options_.device)
                               : origin_elsewhere(study_, options_.device_elsewhere));
      read_states();
    }
    check_sizes();
    StudyPlan plan{shard_, {}, {}};
    for (const size_t i : shard_) {
      plan.epochs_done.push_back(int(curve_of(i).size()));
      plan.over.push_back(states_[i].over);
    }
    return plan;
  }

 private:
  // What is known of a run, from its folder and while it goes on.
  struct State : RunState {
    double opened = 0, saved = 0;  // when
    double seconds_before = 0;
  };

  void read_states() {
    for (size_t i = 0; i < states_.size(); ++i) {
      static_cast<RunState&>(states_[i]) = store_.state(study_, study_.runs[i]);
      curve_of(i) = states_[i].rows;
    }
  }

  const RunSettings& settings_of(size_t run) const {
    return study_.variants[study_.runs[run].variant].settings;
  }
  std::vector<EpochMetrics>& curve_of(size_t run) {
    const StudyRun& r = study_.runs[run];
    return results_.variants[r.variant].curves[r.seed_index];
  }
  double cost_of(size_t run) const {
    const size_t variant = study_.runs[run].variant;
    return variant < observer_.epoch_seconds.size() ? observer_.epoch_seconds[variant] : 1;
  }

  // Before anything is written: can every variant's products be made in its precision?
  void check_precisions() const {
    for (const StudyVariant& v : study_.variants) {
      const RunSettings& s = v.settings;
      if (s.precision == Precision::fp32) continue;
      const ModelSettings model =
          s.model_settings(int(find_task(s.task).tokens.size()), s.length + s.global_tokens);
      check_precision(s, options_.device ? options_.device->precision_problem(s.precision, model)
                                         : "--device cpu");
    }
  }

  // Before anything is written: fits every variant into the memory? (Padding adds a little.)
  void check_sizes() const {
    if (!options_.device_elsewhere.empty()) return;
    check_precisions();
    if (options_.device) return;  // its memory is another, and it says so itself
    for (const StudyVariant& v : study_.variants) {
      const RunSettings& s = v.settings;
      if (!s.train_data.empty()) continue;  // known once the file is read
      const int at_once = std::min(options_.threads, int(shard_.size()));
      check_memory(s.model_settings(int(find_task(s.task).tokens.size()), s.length), s.optimizer,
                   std::min(s.batch, s.train_size), at_once, at_once);
    }
  }

  std::shared_ptr<Run> open(size_t i) {
    const StudyRun& run = study_.runs[i];
    const auto made =
        std::make_shared<Run>(settings_of(i), run.seed, data_.get(settings_of(i), run.seed));
    if (observer_.on_model && !states_[i].has_checkpoint) observer_.on_model(run, *made);
    if (!in_folder_) return made;
    store_.start_run(study_, run);
    if (!states_[i].has_checkpoint) return made;
    store_.restore(run, *made);
    std::vector<EpochMetrics>& rows = states_[i].rows;
    const size_t done = size_t(made->epochs_done());
    if (rows.size() < done)
      fail_input((options_.out / "runs" / run.folder / "metrics.csv").string(), ": has ",
                 rows.size(), " epochs, the checkpoint ", done,
                 "; delete the run's folder to make it again");
    rows.resize(done);
    states_[i].seconds_before = rows.empty() ? 0 : rows.back().seconds;
    {
      const std::lock_guard lock(mutex_);
      curve_of(i) = rows;
    }
    if (int(done) >= settings_of(i).epochs) {  // a kill came just before this was noted
      store_.finish(run);
      tell(i, true, 0);
    }
    return made;
  }

  // The metrics of a run in progress are read and written by its own thread only; what all threads
  // share is under the lock.
  void after_epoch(size_t i, Run& run, std::optional<EpochMetrics> row) {
    State& state = states_[i];
    const double t = seconds_now();
    if (row) row->seconds = state.seconds_before + t - state.opened;
    std::vector<EpochMetrics> rows;
    {
      const std::lock_guard lock(mutex_);
      if (row) curve_of(i).push_back(*row);
      rows = curve_of(i);
    }
    const bool last = row && run.epochs_done() >= settings_of(i).epochs;
    if (in_folder_ &&
        (last || !row || t - state.saved >= options_.checkpoint_seconds || stop().load())) {
      store_.save(study_.runs[i], run, rows);
      state.saved = t;
      if (last) store_.finish(study_.runs[i]);
    }
    if (last && observer_.on_model) observer_.on_model(study_.runs[i], run);
    if (row) tell(i, last, cost_of(i));
  }

  void failed(size_t i, const RunError& error) {
    State& state = states_[i];
    state.failure = error.what();
    if (in_folder_) {
      std::vector<EpochMetrics> rows;
      {
        const std::lock_guard lock(mutex_);
        rows = curve_of(i);
      }
      store_.save_failure(study_.runs[i], rows, state.failure);
    }
    tell(i, true, cost_of(i) * double(settings_of(i).epochs - int(curve_of(i).size())));
  }

  void tell(size_t i, bool over, double work) {
    const std::lock_guard lock(mutex_);
    states_[i].over = over;
    runs_over_ += over;
    work_done_ += work;
    if (!observer_.on_epoch) return;
    observer_.on_epoch({&results_.variants, &study_.runs[i], over, int(shard_.size()), runs_over_,
                        work_done_ / work_, seconds_now() - start_});
  }

  const std::atomic<bool>& stop() const { return observer_.stop ? *observer_.stop : never_; }

  void train() {
    std::vector<size_t> left;
    std::vector<Job> jobs;
    for (const size_t i : shard_) {
      if (states_[i].over) {
        ++runs_over_;
        continue;
      }
      left.push_back(i);
      work_ += cost_of(i) * double(settings_of(i).epochs - int(curve_of(i).size()));
      jobs.push_back({settings_of(i).epochs,
                      [this, i] {
                        states_[i].opened = states_[i].saved = seconds_now();
                        return open(i);
                      },
                      group_of(settings_of(i))});
    }
    start_ = seconds_now();
    JobEvents events;
    events.after_epoch = [&](size_t job, Run& run, std::optional<EpochMetrics> row) {
      after_epoch(left[job], run, row);
    };
    events.failed = [&](size_t job, const RunError& error) { failed(left[job], error); };
    if (options_.device)
      return run_together(*options_.device, jobs, most_together, true, stop(), events);
    run_side_by_side(jobs, options_.threads,
                     options_.together ? int(jobs.size()) : options_.threads, stop(), events);
  }

  StudyOutcome outcome() {
    StudyOutcome all;
    const auto over = [&](size_t i) { return states_[i].over; };
    all.shard_is_over = std::all_of(shard_.begin(), shard_.end(), over);
    all.is_over = true;
    for (size_t i = 0; i < states_.size(); ++i) {
      all.is_over = all.is_over && over(i);
      const StudyRun& run = study_.runs[i];
      if (!states_[i].failure.empty())
        results_.notes.emplace_back(
            "failed", str(study_.variants[run.variant].name, ", ", states_[i].failure));
    }
    // What is shown now and what is read from the file later are the same numbers.
    all.results = parse_results(results_text(study_, results_.notes, results_.variants), "results");
    return all;
  }

  const Study& study_;
  const StudyOptions options_;
  const StudyObserver& observer_;
  StudyStore store_;
  const bool in_folder_;
  const std::vector<size_t> shard_;
  std::vector<State> states_;  // [run]; while it goes on a run's state belongs to its thread
  const std::atomic<bool> never_{false};
  DataShelf data_;
  std::mutex mutex_;  // guards the curves in results_, and what follows
  StudyResults results_;
  int runs_over_ = 0;
  double work_ = 0, work_done_ = 0, start_ = 0;
};

}  // namespace

StudyOutcome run_study(const Study& study, const StudyOptions& options,
                       const StudyObserver& observer) {
  return StudyRunner(study, options, observer).go();
}

StudyPlan plan_study(const Study& study, const StudyOptions& options) {
  const StudyObserver observer;
  return StudyRunner(study, options, observer).plan();
}

}  // namespace focus
