// run_together: parties of runs on devices.
#include <algorithm>
#include <climits>
#include <condition_variable>
#include <future>
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

// A party on its way.
struct Company {
  std::vector<Member> members;
  double share;
  int losses = 0;  // devices that failed at it
};

// The runs of a stepper, which has their states.
struct Group {
  std::vector<Run*> runs;
  std::unique_ptr<Stepper> stepper;

  void place(Device& device, const std::string& form, double share,
             const std::vector<Run*>& members) {
    stepper.reset();  // its memory first
    StepSettings settings = members[0]->step_settings();
    settings.form = form, settings.share = share;
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
           const std::vector<Party>& parties, const std::string& form,
           const std::atomic<bool>& stop, const JobEvents& events)
      : jobs_(jobs), form_(form), stop_(stop), events_(events), usable_(int(devices.size())) {
    for (const Party& party : parties) {
      waiting_.push_back({{}, party.share});
      for (const size_t job : party.jobs)
        waiting_.back().members.push_back({job, jobs[job].epochs});
      least_share_ = std::min(least_share_, party.share);
    }
    for (size_t d = 0; d < devices.size(); ++d)
      places_.push_back({devices[d], str("GPU ", d, " (", devices[d]->hardware(), ")")});
  }

  void run() {
    // A thread for each party that a device may make beside others; the first device's first is
    // this one.
    const size_t at_once = std::min(waiting_.size(), size_t(1.001 / std::max(least_share_, 0.01)));
    std::vector<std::thread> others;
    try {
      for (size_t n = 0; n < std::max<size_t>(1, at_once); ++n)
        for (size_t d = 0; d < places_.size(); ++d)
          if (n + d > 0) others.emplace_back([this, d] { drive(places_[d]); });
    } catch (const std::system_error&) {
      // The system gives no more threads: those that there are do the work.
    }
    drive(places_[0]);
    for (std::thread& thread : others) thread.join();
    if (failure_) std::rethrow_exception(failure_);
    size_t unfinished = 0;
    for (std::deque<Company>* all : {&waiting_, &given_up_})
      for (Company& company : *all)
        for (Member& m : company.members) {
          ++unfinished;
          if (m.run && !m.told) events_.after_epoch(m.job, *m.run, std::nullopt);
        }
    if (!loss_.empty() && unfinished > 0 && !stop_.load())
      throw DeviceLost(str(loss_, "; ", unfinished, " run(s) are not finished, and can go on"));
  }

 private:
  // A device, and what it makes now.
  struct Place {
    Device* device;
    std::string name;
    double filled = 0;  // the sum of shares
    int makes = 0, most = INT_MAX;
    bool lost = false;

    bool has_room_for(const Company& company) const {
      return makes == 0 || (makes < most && filled + company.share <= 1.001);
    }
    void begin(const Company& company) { ++makes, filled += company.share; }
    void end(const Company& company) { --makes, filled -= company.share; }
  };

  // What a thread does for a device. No exception may leave it.
  void drive(Place& place) {
    Company company;
    while (take(place, company)) {
      try {
        make(*place.device, company);
        give_back(place, std::move(company));
      } catch (const OutOfMemory&) {
        give_back_unfit(place, std::move(company), std::current_exception());
      } catch (const DeviceLost& error) {
        lose(place, std::move(company), error);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        place.end(company);
        fail(std::current_exception());
      }
    }
  }
  void fail(std::exception_ptr failure) {
    if (!failure_) failure_ = failure;
    ended_ = true, --busy_;
    changed_.notify_all();
  }

  // The next party; waits while there is no room, or none and another device may still give one up.
  bool take(Place& place, Company& company) {
    std::unique_lock lock(mutex_);
    const auto ready = [&] { return !waiting_.empty() && place.has_room_for(waiting_.front()); };
    changed_.wait(
        lock, [&] { return ended() || place.lost || ready() || (waiting_.empty() && busy_ == 0); });
    if (ended() || place.lost || waiting_.empty()) return false;
    company = std::move(waiting_.front());
    waiting_.pop_front();
    place.begin(company);
    ++busy_;
    return true;
  }
  bool ended() const { return ended_.load() || stop_.load(); }

  // What is left of a party: nothing, or all that did not end before a stop.
  void give_back(Place& place, Company company) {
    const std::lock_guard lock(mutex_);
    place.end(company);
    if (!company.members.empty()) waiting_.push_front(std::move(company));
    --busy_;
    changed_.notify_all();
  }

  // The memory cannot hold a party: not beside so many others, or not all of it together. Then one
  // half may come after the other, which changes no bit.
  void give_back_unfit(Place& place, Company company, std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    place.end(company);
    std::vector<Member>& all = company.members;
    if (place.makes > 0) {
      place.most = place.makes;
    } else if (all.size() > 1) {
      const auto middle = all.begin() + ptrdiff_t((all.size() + 1) / 2);
      waiting_.push_front({{middle, all.end()}, company.share, company.losses});
      all.erase(middle, all.end());
    } else {
      return fail(error);
    }
    waiting_.push_front(std::move(company));
    --busy_;
    changed_.notify_all();
  }

  // Another device takes the party up where its last whole epoch, or its last steps, left it. What
  // a second one fails at does not cost a third.
  void lose(Place& place, Company company, const DeviceLost& error) {
    std::string message = str(place.name, " is lost: ", error.what());
    bool first;
    {
      const std::lock_guard lock(mutex_);
      first = !std::exchange(place.lost, true);
      place.end(company);
      usable_ -= first;
      const bool again = usable_ > 0 && ++company.losses < 2;
      (again ? waiting_ : given_up_).push_front(std::move(company));
      if (loss_.empty() || !again) loss_ = message;
      message += again ? "; its runs go on elsewhere" : "; its runs wait";
      --busy_;
    }
    changed_.notify_all();
    if (first && events_.device_lost && places_.size() > 1) events_.device_lost(message);
  }

  // Brings the members to their ends, as far as they are not stopped; those that are over leave the
  // party.
  void make(Device& device, Company& company) {
    std::vector<Member>& members = company.members;
    for (Member& m : members)
      if (!m.run) m.run = jobs_[m.job].open();
    Group group;
    std::optional<std::vector<StepsMade>> ahead;  // steps of the present epoch
    for (;;) {
      std::erase_if(members, [](const Member& m) { return m.over(); });
      if (members.empty() || ended_.load()) return;
      const std::vector<Member*> next = furthest_behind(members);
      std::vector<Run*> runs;
      for (const Member* m : next) runs.push_back(m->run.get());
      if (group.runs != runs) {
        ahead.reset();
        group.place(device, form_, company.share, runs);
      }
      Stepper& stepper = *group.stepper;
      std::vector<EpochResult> results =
          take_steps(stepper, runs, ahead ? *ahead : make_steps(stepper, runs, stop_));
      ahead.reset();
      bool stopped;
      if (can_evaluate(runs, results)) {
        stepper.take_snapshot();
        const auto evaluate = [&] {
          evaluate_epoch(stepper, runs, results, stop_);
          return tell(next, results);
        };
        if (all_go_on(members, next, results))
          stopped = beside(evaluate, [&, epochs = next_epochs(runs)] {
            ahead = stepper.train(epochs, 0, runs[0]->steps_per_epoch(), stop_);
          });
        else
          stopped = evaluate();
      } else {
        stopped = tell(next, results);
      }
      for (size_t i = next.size(); i-- > 0;)
        if (results[i].error) members.erase(members.begin() + (next[i] - members.data()));
      if (stopped || (stop_.load() && !ahead)) return;
    }
  }

  // Do all members make another epoch after this one, in this company? Then they can begin it while
  // this one is evaluated. What they make ahead counts once this one is told; what stops or fails
  // before that leaves them at its end.
  bool all_go_on(const std::vector<Member>& members, const std::vector<Member*>& next,
                 const std::vector<EpochResult>& results) const {
    for (const Member* m : next)
      if (m->run->epochs_done() + 1 >= m->epochs) return false;
    for (const EpochResult& result : results)
      if (result.error) return false;
    return next.size() == members.size() && !stop_.load();
  }
  static std::vector<Epoch> next_epochs(const std::vector<Run*>& runs) {
    std::vector<Epoch> epochs;
    for (const Run* run : runs) epochs.push_back(run->epoch(1));
    return epochs;
  }
  // What `evaluate` returns, which another thread calls while this one trains.
  template <class Evaluate, class Train>
  static bool beside(const Evaluate& evaluate, const Train& train) {
    std::future<bool> result;
    try {
      result = std::async(std::launch::async, evaluate);
    } catch (const std::system_error&) {  // no more threads
      return evaluate();
    }
    train();
    return result.get();
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

  const std::vector<Job>& jobs_;
  const std::string& form_;
  const std::atomic<bool>& stop_;
  const JobEvents& events_;
  const double start_ = seconds_now();
  double least_share_ = 1;
  std::atomic<bool> ended_{false};  // by a failure
  std::mutex mutex_;                // guards what follows
  std::condition_variable changed_;
  std::deque<Place> places_;
  std::deque<Company> waiting_, given_up_;
  int usable_, busy_ = 0;  // devices; parties on their way
  std::string loss_;
  std::exception_ptr failure_;
};

}  // namespace

void run_together(const std::vector<Device*>& devices, const std::vector<Job>& jobs,
                  const std::vector<Party>& parties, const std::string& form,
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
