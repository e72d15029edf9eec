#include <tuple>

#include "clock.h"
#include "train/run_group.h"

namespace focus {

void run_together(Device<float>& device, std::deque<Run>& runs, int epochs, bool by_kernel,
                  const std::atomic<bool>& stop, const AfterEpoch& after) {
  const double start = seconds_now();
  const auto place = [](const Run& run) {
    return std::tuple(run.epochs_done(), run.steps_in_epoch());
  };
  std::unique_ptr<RunGroup> group;
  for (;;) {
    // The runs that are furthest behind; those that resume may stand at different steps.
    std::vector<Run*> next;
    std::vector<size_t> numbers;
    for (size_t i = 0; i < runs.size(); ++i) {
      if (runs[i].epochs_done() >= epochs) continue;
      if (!next.empty() && place(runs[i]) < place(*next[0])) next.clear(), numbers.clear();
      if (next.empty() || place(runs[i]) == place(*next[0]))
        next.push_back(&runs[i]), numbers.push_back(i);
    }
    if (next.empty()) return;
    if (!group || group->runs() != next) {
      group.reset();  // its memory first
      group = std::make_unique<RunGroup>(device, next, by_kernel);
    }
    std::vector<EpochMetrics> rows;
    const bool whole = group->run_epoch(stop, rows);
    const double seconds = seconds_now() - start;
    for (size_t n = 0; n < numbers.size(); ++n) {
      if (whole) rows[n].seconds = seconds;
      after(numbers[n], whole ? std::optional(rows[n]) : std::nullopt);
    }
    if (whole && !stop.load()) continue;
    return;
  }
}

}  // namespace focus
