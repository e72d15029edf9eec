// run_together: parties of runs on devices.
#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <tuple>

#include "clock.h"
#include "train/scheduler.h"

namespace focus {

namespace {

// One job on its way.
struct Member {
  size_t job;
  int epochs;
  std::shared_ptr<Run> run = {};  // once it is open
  bool told = false;              // that it was interrupted
  bool over() const { return run->epochs_done() >= epochs; }
  auto place() const { return std::tuple(run->epochs_done(), run->steps_in_epoch()); }
};

// Jobs that a device makes together.
struct Party {
  std::vector<Member> members;
  int losses = 0;  // devices that failed at it
};

// The runs of a stepper, which has their states.
struct Group {
  std::vector<Run*> runs;
  std::unique_ptr<Stepper> stepper;

  void place(Device& device, const std::string& form, const std::vector<Run*>& members) {
    stepper.reset();  // its memory first
    StepSettings settings = members[0]->step_settings();
    settings.form = form;
    std::vector<StepRun> all;
    for (const Run* run : members) all.push_back(run->step_run());
    stepper = device.make_stepper(settings, std::move(all));
    runs = members;
    for (size_t r = 0; r < runs.size(); ++r) runs[r]->load_into(*stepper, int(r));
  }
};

// The members that are furthest behind: those that resume may stand at different steps.
std::vector<Member*> furthest_behind(std::vector<Member>& members) {
  std::vector<Member*> next;
  for (Member& m : members) {
    if (!next.empty() && m.place() < next[0]->place()) next.clear();
    if (next.empty() || m.place() == next[0]->place()) next.push_back(&m);
  }
  return next;
}

class Together {
 public:
  Together(const std::vector<Device*>& devices, const std::vector<Job>& jobs,
           const std::vector<std::vector<size_t>>& parties, const std::string& form,
           const std::atomic<bool>& stop, const JobEvents& events)
      : devices_(devices),
        jobs_(jobs),
        form_(form),
        stop_(stop),
        events_(events),
        usable_(int(devices.size())) {
    for (const std::vector<size_t>& party : parties) {
      waiting_.emplace_back();
      for (const size_t job : party) waiting_.back().members.push_back({job, jobs[job].epochs});
    }
    for (size_t d = 0; d < devices.size(); ++d)
      names_.push_back(str("GPU ", d, " (", devices[d]->hardware(), ")"));
  }

  void run() {
    std::vector<std::thread> others;
    try {
      for (size_t d = 1; d < devices_.size(); ++d) others.emplace_back([this, d] { drive(d); });
    } catch (const std::system_error&) {
      // The system gives no more threads: those that there are do the work.
      usable_ = 1 + int(others.size());
    }
    drive(0);
    for (std::thread& thread : others) thread.join();
    if (failure_) std::rethrow_exception(failure_);
    size_t unfinished = 0;
    for (std::deque<Party>* parties : {&waiting_, &given_up_})
      for (Party& party : *parties)
        for (Member& m : party.members) {
          ++unfinished;
          if (m.run && !m.told) events_.after_epoch(m.job, *m.run, std::nullopt);
        }
    if (!loss_.empty() && unfinished > 0 && !stop_.load())
      throw DeviceLost(str(loss_, "; ", unfinished, " run(s) are not finished, and can go on"));
  }

 private:
  // What one device's thread does. No exception may leave it.
  void drive(size_t d) {
    Party party;
    while (take(party)) {
      try {
        make(*devices_[d], party);
        give_back(std::move(party));
      } catch (const DeviceLost& error) {
        lose(d, std::move(party), error);
        return;
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
        ended_ = true, --busy_;
        changed_.notify_all();
        return;
      }
    }
  }

  // The next party; waits while none is there and another device may still give one up.
  bool take(Party& party) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended() || !waiting_.empty() || busy_ == 0; });
    if (ended() || waiting_.empty()) return false;
    party = std::move(waiting_.front());
    waiting_.pop_front();
    ++busy_;
    return true;
  }
  bool ended() const { return ended_.load() || stop_.load(); }

  // What is left of a party: nothing, all of it after a stop, or all that the memory cannot hold
  // together. Of that, one half may come after the other, which changes no bit.
  void give_back(Party party) {
    const std::lock_guard lock(mutex_);
    std::vector<Member>& all = party.members;
    if (!all.empty() && !ended()) {
      Party second{{all.begin() + ptrdiff_t((all.size() + 1) / 2), all.end()}, party.losses};
      all.resize(all.size() - second.members.size());
      waiting_.push_front(std::move(second));
    }
    if (!all.empty()) waiting_.push_front(std::move(party));
    --busy_;
    changed_.notify_all();
  }

  // Another device takes the party up where its last whole epoch, or its last steps, left it. What
  // a second one fails at does not cost a third.
  void lose(size_t d, Party party, const DeviceLost& error) {
    std::string message = str(names_[d], " is lost: ", error.what());
    {
      const std::lock_guard lock(mutex_);
      const bool again = --usable_ > 0 && ++party.losses < 2;
      (again ? waiting_ : given_up_).push_front(std::move(party));
      if (loss_.empty() || !again) loss_ = message;
      message += again ? "; its runs go on elsewhere" : "; its runs wait";
      --busy_;
    }
    changed_.notify_all();
    if (events_.device_lost && devices_.size() > 1) events_.device_lost(message);
  }

  // Brings the members to their ends, as far as they are not stopped; those that are over leave the
  // party. Returns with all that remain if the memory cannot hold them together.
  void make(Device& device, Party& party) {
    std::vector<Member>& members = party.members;
    for (Member& m : members)
      if (!m.run) m.run = jobs_[m.job].open();
    Group group;
    for (;;) {
      std::erase_if(members, [](const Member& m) { return m.over(); });
      if (members.empty() || ended_.load()) return;
      const std::vector<Member*> next = furthest_behind(members);
      std::vector<Run*> runs;
      for (const Member* m : next) runs.push_back(m->run.get());
      if (group.runs != runs) try {
          group.place(device, form_, runs);
        } catch (const OutOfMemory&) {
          if (runs.size() == 1) throw;
          return;
        }
      std::vector<EpochResult> results = run_epoch(*group.stepper, runs, stop_);
      const bool stopped = tell(next, results) || stop_.load();
      for (size_t i = next.size(); i-- > 0;)
        if (results[i].error) members.erase(members.begin() + (next[i] - members.data()));
      if (stopped) return;
    }
  }

  // Was an epoch interrupted?
  bool tell(const std::vector<Member*>& members, std::vector<EpochResult>& results) {
    const double seconds = seconds_now() - start_;
    bool stopped = false;
    std::optional<RunError> fatal;
    for (size_t i = 0; i < members.size(); ++i) {
      Member& m = *members[i];
      EpochResult& result = results[i];
      if (result.error) {
        if (events_.failed)
          events_.failed(m.job, *result.error);
        else
          fatal = result.error;
        continue;
      }
      if (result.row) result.row->seconds = seconds;
      m.told = !result.row;
      stopped = stopped || !result.row;
      events_.after_epoch(m.job, *m.run, result.row);
    }
    if (fatal) throw *fatal;
    return stopped;
  }

  const std::vector<Device*>& devices_;
  const std::vector<Job>& jobs_;
  const std::string& form_;
  const std::atomic<bool>& stop_;
  const JobEvents& events_;
  const double start_ = seconds_now();
  std::vector<std::string> names_;
  std::atomic<bool> ended_{false};  // by a failure
  std::mutex mutex_;                // guards what follows
  std::condition_variable changed_;
  std::deque<Party> waiting_, given_up_;
  int usable_, busy_ = 0;  // devices
  std::string loss_;
  std::exception_ptr failure_;
};

}  // namespace

void run_together(const std::vector<Device*>& devices, const std::vector<Job>& jobs,
                  const std::vector<std::vector<size_t>>& parties, const std::string& form,
                  const std::atomic<bool>& stop, const JobEvents& events) {
  Together(devices, jobs, parties, form, stop, events).run();
}

std::vector<Job> jobs_of(std::deque<Run>& runs, int epochs) {
  std::vector<Job> jobs;
  for (Run& run : runs)  // a pointer that owns nothing
    jobs.push_back({epochs, [&run] { return std::shared_ptr<Run>(std::shared_ptr<Run>(), &run); }});
  return jobs;
}

}  // namespace focus
