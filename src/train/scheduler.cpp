#include "train/scheduler.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

namespace focus {

namespace {

class Scheduler {
 public:
  Scheduler(std::deque<Run>& runs, int epochs, int threads, const std::atomic<bool>& stop,
            const AfterEpoch& after)
      : runs_(runs), epochs_(epochs), stop_(stop), after_(after), busy_(runs.size()) {
    const int drivers = std::clamp(threads, 1, std::max(1, int(runs.size())));
    threads_per_run_ = std::max(1, threads / drivers);
    std::vector<std::thread> others;
    try {
      for (int d = 1; d < drivers; ++d) others.emplace_back([this] { drive(); });
    } catch (const std::system_error&) {
      // The system gives no more threads: those that there are do the work.
    }
    drive();
    for (std::thread& thread : others) thread.join();
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  static constexpr size_t none = ~size_t{0};

  // The free run with the fewest epochs; waits if all unfinished ones are busy.
  size_t next_run(std::unique_lock<std::mutex>& lock) {
    for (;; changed_.wait(lock)) {
      if (failure_ || stop_.load()) return none;
      size_t next = none;
      bool unfinished = false;
      for (size_t i = 0; i < runs_.size(); ++i) {
        // A busy run's counter belongs to the thread that runs it.
        if (busy_[i]) {
          unfinished = true;
        } else if (const int done = runs_[i].epochs_done(); done < epochs_) {
          unfinished = true;
          if (next == none || done < runs_[next].epochs_done()) next = i;
        }
      }
      if (next != none || !unfinished) return next;
    }
  }

  // What one thread does. No exception may leave it.
  void drive() {
    try {
      drive_runs();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      changed_.notify_all();
    }
  }

  void drive_runs() {
    Workers workers(threads_per_run_);
    Tape<float> tape(workers);
    std::unique_lock lock(mutex_);
    for (size_t i; (i = next_run(lock)) != none;) {
      busy_[i] = true;
      lock.unlock();
      std::exception_ptr failure;
      try {
        std::optional<EpochMetrics> row = runs_[i].run_epoch(tape, stop_);
        const auto now = std::chrono::steady_clock::now();
        if (row) row->seconds = std::chrono::duration<double>(now - start_).count();
        after_(i, row);
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      busy_[i] = false;
      if (failure && !failure_) failure_ = failure;
      changed_.notify_all();
    }
  }

  std::deque<Run>& runs_;
  const int epochs_;
  const std::atomic<bool>& stop_;
  const AfterEpoch& after_;
  int threads_per_run_ = 1;
  std::mutex mutex_;  // guards busy_ and failure_, and the choice of the next run
  std::condition_variable changed_;
  std::vector<bool> busy_;
  std::exception_ptr failure_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

void run_side_by_side(std::deque<Run>& runs, int epochs, int threads, const std::atomic<bool>& stop,
                      const AfterEpoch& after) {
  Scheduler(runs, epochs, threads, stop, after);
}

}  // namespace focus
