#include <algorithm>
#include <tuple>

#include "clock.h"
#include "train/run_group.h"

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
  Together(Device<float>& device, bool use_kernel, const std::atomic<bool>& stop,
           const JobEvents& events)
      : device_(device), use_kernel_(use_kernel), stop_(stop), events_(events) {}

  // Brings the members to their ends: together, or where the device has no memory for all of them,
  // one half after the other, which changes no bit. False: stopped.
  bool finish(std::vector<Member> members) {
    std::unique_ptr<RunGroup> group;
    for (;;) {
      std::erase_if(members, [](const Member& m) { return m.over(); });
      if (members.empty()) return true;
      const std::vector<Member*> next = furthest_behind(members);
      std::vector<Run*> runs;
      for (const Member* m : next) runs.push_back(m->run.get());
      if (!group || group->runs() != runs) {
        group.reset();  // its memory first
        try {
          group = std::make_unique<RunGroup>(
              device_, runs, use_kernel_ && step_kernel_problem(device_, *runs[0]).empty());
        } catch (const OutOfMemory&) {
          if (runs.size() == 1) throw;
          return finish_in_halves(std::move(members));
        }
      }
      std::vector<std::optional<EpochMetrics>> rows;
      try {
        const bool whole = group->run_epoch(stop_, rows);
        tell(next, rows, true);
        if (!whole || stop_.load()) return false;
      } catch (const RunError& error) {
        if (!events_.failed) throw;
        tell(next, rows, false);
        const size_t failed = next[group->failed()]->job;
        group.reset();
        std::erase_if(members, [&](const Member& m) { return m.job == failed; });
        events_.failed(failed, error);
      }
    }
  }

 private:
  bool finish_in_halves(std::vector<Member> first) {
    const auto middle = first.begin() + ptrdiff_t(first.size() / 2);
    std::vector<Member> second(middle, first.end());
    first.erase(middle, first.end());
    return finish(std::move(first)) && finish(std::move(second));
  }

  void tell(const std::vector<Member*>& members, std::vector<std::optional<EpochMetrics>>& rows,
            bool all) {
    const double seconds = seconds_now() - start_;
    for (size_t i = 0; i < members.size(); ++i) {
      if (rows[i]) rows[i]->seconds = seconds;
      if (rows[i] || all) events_.after_epoch(members[i]->job, *members[i]->run, rows[i]);
    }
  }

  Device<float>& device_;
  const bool use_kernel_;
  const std::atomic<bool>& stop_;
  const JobEvents& events_;
  const double start_ = seconds_now();
};

}  // namespace

std::string step_kernel_problem(const Device<float>& device, Run& run) {
  return device.step_kernel_problem(run.model().settings(),
                                    std::min(run.settings().batch, run.data().train.rows));
}

void run_together(Device<float>& device, const std::vector<Job>& jobs, int at_once, bool use_kernel,
                  const std::atomic<bool>& stop, const JobEvents& events) {
  Together together(device, use_kernel, stop, events);
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

void run_together(Device<float>& device, std::deque<Run>& runs, int epochs, bool use_kernel,
                  const std::atomic<bool>& stop, const AfterEpoch& after) {
  std::vector<Job> jobs;
  for (Run& run : runs)  // a pointer that owns nothing
    jobs.push_back({epochs, [&run] { return std::shared_ptr<Run>(std::shared_ptr<Run>(), &run); }});
  run_together(device, jobs, int(runs.size()), use_kernel, stop,
               {[&](size_t i, const Run&, std::optional<EpochMetrics> row) { after(i, row); }});
}

}  // namespace focus
