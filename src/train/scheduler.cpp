#include "train/scheduler.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "train/cpu_stepper.h"

namespace focus {

namespace {

// The threads inside a run's steps, and the tape that its steps share with other runs.
struct Engine {
  Workers workers;
  Tape<float> tape;
  explicit Engine(int threads) : workers(threads), tape(workers) {}
};

class Scheduler {
 public:
  Scheduler(const std::vector<Job>& jobs, int threads, int at_once, const std::atomic<bool>& stop,
            const JobEvents& events)
      : jobs_(jobs),
        threads_(std::max(1, threads)),
        at_once_(std::max(1, at_once)),
        stop_(stop),
        events_(events),
        slots_(jobs.size()),
        unfinished_(int(jobs.size())) {
    const int drivers = std::clamp(threads_, 1, std::max(1, std::min(at_once_, unfinished_)));
    std::vector<std::thread> others;
    try {
      for (int d = 1; d < drivers; ++d) others.emplace_back([this] { drive(); });
    } catch (const std::system_error&) {
      // The system gives no more threads: those that there are do the work.
    }
    drive();
    for (std::thread& thread : others) thread.join();
    if (failure_) std::rethrow_exception(failure_);
    // Those that stand at the end of an epoch have been stopped too.
    for (size_t i = 0; i < slots_.size(); ++i)
      if (slots_[i].run && !slots_[i].told) events_.after_epoch(i, *slots_[i].run, std::nullopt);
  }

 private:
  static constexpr size_t none = ~size_t{0};

  enum class State { waiting, free, busy, finished };
  struct Slot {
    State state = State::waiting;
    int done = 0;       // epochs
    bool told = false;  // that it was interrupted
    std::shared_ptr<Run> run = {};
  };

  // The job whose epoch comes next; waits if all unfinished ones are busy. Marks it as busy.
  size_t next_job(std::unique_lock<std::mutex>& lock) {
    for (;; changed_.wait(lock)) {
      if (failure_ || stop_.load() || unfinished_ == 0) return none;
      size_t waiting = none, least = none;
      int open = 0;
      const auto share = [&](size_t i) { return double(slots_[i].done) / jobs_[i].epochs; };
      for (size_t i = 0; i < slots_.size(); ++i) {
        const State state = slots_[i].state;
        open += state == State::free || state == State::busy;
        if (state == State::waiting && waiting == none) waiting = i;
        if (state == State::free && (least == none || share(i) < share(least))) least = i;
      }
      const size_t next = waiting != none && open < at_once_ ? waiting : least;
      if (next == none) continue;
      slots_[next].state = State::busy;
      return next;
    }
  }

  // What one thread does. No exception may leave it.
  void drive() {
    std::unique_lock lock(mutex_);
    std::optional<Engine> engine;
    for (size_t i; (i = next_job(lock)) != none;) {
      const int inner = std::max(1, threads_ / std::min(at_once_, unfinished_));
      Slot& slot = slots_[i];
      lock.unlock();
      bool finished = true;
      std::exception_ptr failure;
      try {
        if (!engine || engine->workers.threads() != inner) engine.emplace(inner);
        finished = work(i, slot, engine->tape);
        if (finished) slot.run.reset();
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      if (failure && !failure_) failure_ = failure;
      slot.state = finished ? State::finished : State::free;
      unfinished_ -= finished;
      changed_.notify_all();
    }
  }

  // One epoch of one run. True when the run is done.
  bool work(size_t i, Slot& slot, Tape<float>& tape) {
    if (!slot.run) slot.run = jobs_[i].open();
    try {
      if (slot.run->epochs_done() < jobs_[i].epochs) {
        std::optional<EpochMetrics> row = run_epoch(*slot.run, tape, stop_);
        const auto now = std::chrono::steady_clock::now();
        if (row) row->seconds = std::chrono::duration<double>(now - start_).count();
        slot.told = !row;
        events_.after_epoch(i, *slot.run, row);
      }
    } catch (const RunError& error) {
      if (!events_.failed) throw;
      events_.failed(i, error);
      return true;
    }
    slot.done = slot.run->epochs_done();
    return slot.done >= jobs_[i].epochs;
  }

  const std::vector<Job>& jobs_;
  const int threads_, at_once_;
  const std::atomic<bool>& stop_;
  const JobEvents& events_;
  std::mutex mutex_;  // guards what follows; a busy slot belongs to the thread that works on it
  std::condition_variable changed_;
  std::vector<Slot> slots_;
  int unfinished_;
  std::exception_ptr failure_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

void run_side_by_side(const std::vector<Job>& jobs, int threads, int at_once,
                      const std::atomic<bool>& stop, const JobEvents& events) {
  if (!jobs.empty()) Scheduler(jobs, threads, at_once, stop, events);
}

}  // namespace focus
