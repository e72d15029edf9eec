// run_together: groups of runs on a device.
#include <algorithm>
#include <tuple>

#include "clock.h"
#include "train/scheduler.h"

namespace focus {

namespace {

// One job on its way.
struct Member {
  size_t job;
  int epochs;
  std::shared_ptr<Run> run;
  bool over() const { return run->epochs_done() >= epochs; }
  auto place() const { return std::tuple(run->epochs_done(), run->steps_in_epoch()); }
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
  Together(Device& device, const std::string& form, const std::atomic<bool>& stop,
           const JobEvents& events)
      : device_(device), form_(form), stop_(stop), events_(events) {}

  // Brings the members to their ends: together, or where the device has no memory for all of them,
  // one half after the other, which changes no bit. False: stopped.
  bool finish(std::vector<Member> members) {
    Group group;
    for (;;) {
      std::erase_if(members, [](const Member& m) { return m.over(); });
      if (members.empty()) return true;
      const std::vector<Member*> next = furthest_behind(members);
      std::vector<Run*> runs;
      for (const Member* m : next) runs.push_back(m->run.get());
      if (group.runs != runs) try {
          group.place(device_, form_, runs);
        } catch (const OutOfMemory&) {
          if (runs.size() == 1) throw;
          group.stepper.reset();
          return finish_in_halves(std::move(members));
        }
      std::vector<EpochResult> results = run_epoch(*group.stepper, runs, stop_);
      const bool stopped = tell(next, results) || stop_.load();
      for (size_t i = next.size(); i-- > 0;)
        if (results[i].error) members.erase(members.begin() + (next[i] - members.data()));
      if (stopped) return false;
    }
  }

 private:
  bool finish_in_halves(std::vector<Member> first) {
    const auto middle = first.begin() + ptrdiff_t(first.size() / 2);
    std::vector<Member> second(middle, first.end());
    first.erase(middle, first.end());
    return finish(std::move(first)) && finish(std::move(second));
  }

  // Was an epoch interrupted?
  bool tell(const std::vector<Member*>& members, std::vector<EpochResult>& results) {
    const double seconds = seconds_now() - start_;
    bool stopped = false;
    std::optional<RunError> fatal;
    for (size_t i = 0; i < members.size(); ++i) {
      const Member& m = *members[i];
      EpochResult& result = results[i];
      if (result.error) {
        if (events_.failed)
          events_.failed(m.job, *result.error);
        else
          fatal = result.error;
        continue;
      }
      if (result.row) result.row->seconds = seconds;
      stopped = stopped || !result.row;
      events_.after_epoch(m.job, *m.run, result.row);
    }
    if (fatal) throw *fatal;
    return stopped;
  }

  Device& device_;
  const std::string& form_;
  const std::atomic<bool>& stop_;
  const JobEvents& events_;
  const double start_ = seconds_now();
};

}  // namespace

void run_together(Device& device, const std::vector<Job>& jobs, int at_once,
                  const std::string& form, const std::atomic<bool>& stop, const JobEvents& events) {
  Together together(device, form, stop, events);
  std::vector<std::string> groups;  // in the order of their first jobs
  for (const Job& job : jobs)
    if (std::find(groups.begin(), groups.end(), job.group) == groups.end())
      groups.push_back(job.group);
  for (const std::string& group : groups)
    for (size_t i = 0; i < jobs.size();) {
      std::vector<Member> members;
      for (; i < jobs.size() && int(members.size()) < std::max(1, at_once); ++i)
        if (jobs[i].group == group) members.push_back({i, jobs[i].epochs, jobs[i].open()});
      if (!together.finish(std::move(members))) return;
    }
}

std::vector<Job> jobs_of(std::deque<Run>& runs, int epochs) {
  std::vector<Job> jobs;
  for (Run& run : runs)  // a pointer that owns nothing
    jobs.push_back({epochs, [&run] { return std::shared_ptr<Run>(std::shared_ptr<Run>(), &run); }});
  return jobs;
}

}  // namespace focus
