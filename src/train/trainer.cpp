#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "files/atomic_file.h"
#include "train/run.h"

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
    if (plan_.out.empty()) return;
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
    const int drivers = std::clamp(plan_.threads, 1, int(runs_.size()));
    std::vector<std::thread> threads;
    for (int d = 1; d < drivers; ++d) threads.emplace_back([&] { drive(drivers); });
    drive(drivers);
    for (std::thread& thread : threads) thread.join();
    if (failure_) std::rethrow_exception(failure_);
    const bool finished = std::all_of(runs_.begin(), runs_.end(), [&](const Run& run) {
      return run.epochs_done() >= plan_.settings.epochs;
    });
    if (!plan_.out.empty()) return {finished, metrics_.rows()};
    std::sort(kept_.begin(), kept_.end(), [](const EpochMetrics& a, const EpochMetrics& b) {
      return std::pair(a.epoch, a.seed) < std::pair(b.epoch, b.seed);
    });
    return {finished, kept_};
  }

 private:
  fs::path folder(const Run& run) const { return plan_.out / str("seed-", run.seed()); }

  void save(const Run& run, const char* name) const {
    if (plan_.out.empty()) return;
    fs::create_directories(folder(run));
    run.checkpoint().write(folder(run) / str(name, ".safetensors"));
  }

  // The free run with the fewest epochs: all runs advance together, and no thread is idle while an
  // epoch is left to do. nullptr when nothing is left or the work is to end.
  Run* next_run(std::unique_lock<std::mutex>& lock) {
    for (;;) {
      if (stopping()) return nullptr;
      Run* next = nullptr;
      bool unfinished = false;
      for (size_t i = 0; i < runs_.size(); ++i) {
        Run& run = runs_[i];
        if (run.epochs_done() >= plan_.settings.epochs) continue;
        unfinished = true;
        if (!busy_[i] && (!next || run.epochs_done() < next->epochs_done())) next = &run;
      }
      if (next || !unfinished) return next;
      changed_.wait(lock);
    }
  }

  bool stopping() const { return failure_ || (observer_.stop && observer_.stop->load()); }

  void drive(int drivers) {
    Workers workers(std::max(1, plan_.threads / drivers));
    Tape<float> tape(workers);
    const std::atomic<bool> never{false};
    std::unique_lock lock(mutex_);
    busy_.resize(runs_.size());
    while (Run* run = next_run(lock)) {
      size_t index = 0;
      while (&runs_[index] != run) ++index;
      busy_[index] = true;
      lock.unlock();
      std::optional<EpochMetrics> row;
      std::exception_ptr failure;
      try {
        row = run->run_epoch(tape, observer_.stop ? *observer_.stop : never);
        if (row) row->seconds = seconds();
        // First the line, then the checkpoint: killed in between, a resumed run makes the epoch
        // again and replaces the line.
        if (row && !plan_.out.empty()) metrics_.add(*row);
        if (row && run->is_best()) save(*run, "best");
        save(*run, "last");
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      busy_[index] = false;
      if (failure && !failure_) failure_ = failure;
      if (row && plan_.out.empty()) kept_.push_back(*row);
      if (row && observer_.on_epoch && !failure_) observer_.on_epoch(*row);
      changed_.notify_all();
    }
    changed_.notify_all();
  }

  double seconds() const {
    const auto now = std::chrono::steady_clock::now();
    return seconds_before_ + std::chrono::duration<double>(now - start_).count();
  }

  TrainPlan plan_;
  TrainObserver observer_;
  MetricsFile metrics_;
  std::vector<EpochMetrics> kept_;
  std::deque<Run> runs_;
  std::vector<bool> busy_;
  std::mutex mutex_;  // guards busy_, kept_, failure_ and the choice of the next run
  std::condition_variable changed_;
  std::exception_ptr failure_;
  double seconds_before_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void check_plan(const TrainPlan& plan) {
  check_settings(plan.settings);
  if (plan.seeds.empty()) fail_input("--seeds: at least one seed is needed");
  if (plan.threads < 1 || plan.threads > 1024)
    fail_input("--threads ", plan.threads, " is not between 1 and 1024");
  if (plan.out.empty()) return;
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
