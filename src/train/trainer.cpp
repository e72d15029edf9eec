#include "train/trainer.h"

#include <algorithm>
#include <deque>
#include <mutex>

#include "files/atomic_file.h"
#include "train/run.h"
#include "train/scheduler.h"

namespace focus {

namespace fs = std::filesystem;

namespace {

class Trainer {
 public:
  Trainer(const TrainPlan& plan, const TrainObserver& observer)
      : plan_(plan), observer_(observer), metrics_(plan.out / "metrics.csv") {}

  void make_runs() {
    const bool same_data =
        !plan_.settings.train_data.empty() || data_seed(find_task(plan_.settings.task), 0) ==
                                                  data_seed(find_task(plan_.settings.task), 1);
    std::shared_ptr<const RunData> data;
    for (uint64_t seed : plan_.seeds) {
      if (!data || !same_data) data = make_run_data(plan_.settings, seed);
      runs_.emplace_back(plan_.settings, seed, data);
    }
  }

  void start_folder() {
    std::error_code error;
    fs::create_directories(plan_.out, error);
    if (error)
      fail_input("--out ", plan_.out.string(), ": cannot make the folder: ", error.message());
    try {
      write_file_atomically(plan_.out / "settings.json", plan_text(plan_));
      metrics_.write();
      for (const Run& run : runs_) save(run, "last");
    } catch (...) {  // a disk that is full at once, say: leave nothing behind
      fs::remove_all(plan_.out, error);
      throw;
    }
  }

  void restore() {
    metrics_.load();
    for (Run& run : runs_) {
      run.restore(Safetensors::read(folder(run) / "last.safetensors"));
      metrics_.drop_after(run.seed(), run.epochs_done());
    }
    for (const EpochMetrics& row : metrics_.rows())
      seconds_before_ = std::max(seconds_before_, row.seconds);
    write_file_atomically(plan_.out / "settings.json", plan_text(plan_));
  }

  TrainResult go() {
    const std::atomic<bool> never{false};
    const auto after = [this](size_t i, std::optional<EpochMetrics> row) {
      const Run& run = runs_[i];
      if (row) row->seconds += seconds_before_;
      // First the line, then the checkpoint: killed in between, a resumed run makes the epoch again
      // and replaces the line.
      if (row) metrics_.add(*row);
      if (row && run.is_best()) save(run, "best");
      save(run, "last");
      const std::lock_guard lock(callback_mutex_);
      if (row && observer_.on_epoch) observer_.on_epoch(*row);
    };
    run_side_by_side(runs_, plan_.settings.epochs, plan_.threads,
                     observer_.stop ? *observer_.stop : never, after);
    const bool finished = std::all_of(runs_.begin(), runs_.end(), [&](const Run& run) {
      return run.epochs_done() >= plan_.settings.epochs;
    });
    return {finished, metrics_.rows()};
  }

 private:
  fs::path folder(const Run& run) const { return plan_.out / str("seed-", run.seed()); }

  void save(const Run& run, const char* name) const {
    fs::create_directories(folder(run));
    run.checkpoint().write(folder(run) / str(name, ".safetensors"));
  }

  TrainPlan plan_;
  TrainObserver observer_;
  MetricsFile metrics_;
  std::deque<Run> runs_;
  std::mutex callback_mutex_;
  double seconds_before_ = 0;
};

void check_plan(const TrainPlan& plan) {
  check_settings(plan.settings);
  if (plan.seeds.empty()) fail_input("--seeds: at least one seed is needed");
  if (plan.threads < 1 || plan.threads > 1024)
    fail_input("--threads ", plan.threads, " is not between 1 and 1024");
  if (fs::exists(plan.out / "settings.json"))
    fail_input("--out ", plan.out.string(),
               " already holds a run: choose another folder, or "
               "'focus resume ",
               plan.out.string(), "'");
  if (fs::exists(plan.out) && !fs::is_directory(plan.out))
    fail_input("--out ", plan.out.string(), " is a file, not a folder");
  if (fs::exists(plan.out) && !fs::is_empty(plan.out))
    fail_input("--out ", plan.out.string(), " is not empty: choose another folder");
}

}  // namespace

TrainResult train(const TrainPlan& plan, const TrainObserver& observer) {
  check_plan(plan);
  Trainer trainer(plan, observer);
  trainer.make_runs();
  trainer.start_folder();
  return trainer.go();
}

TrainResult resume(const fs::path& dir, int epochs, int threads, const TrainObserver& observer) {
  TrainPlan plan = read_plan(dir);
  if (epochs > 0) plan.settings.epochs = epochs;
  if (threads > 0) plan.threads = threads;
  Trainer trainer(plan, observer);
  trainer.make_runs();
  trainer.restore();
  return trainer.go();
}

}  // namespace focus
