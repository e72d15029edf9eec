#include "study/check_recording.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "error.h"
#include "joined.h"
#include "study/nearest.h"

namespace focus {

void check_whole(const Recording& recording, const std::string& folder) {
  for (const RecordedVariant& v : recording.variants) {
    const std::string name = str(folder, ": '", v.name, "'");
    if (v.seeds.empty()) fail_input(name, " has no line in seeds.csv");
    std::set<uint64_t> seeds;
    bool is_whole = v.epochs == recorded_epochs(v.settings.epochs);
    for (const SeedOutcome& s : v.seeds) {
      if (!seeds.insert(s.seed).second) fail_input(name, ": seed ", s.seed, " is there twice");
      is_whole &= s.last.epoch == v.settings.epochs;
      for (double x : {s.last.train_loss, s.last.train_accuracy, s.last.val_loss,
                       s.last.val_accuracy, s.best_val_accuracy})
        is_whole &= std::isfinite(x);
    }
    const bool has_failed = std::ranges::any_of(recording.notes, [&](const auto& note) {
      return note.first == "failed" && note.second.starts_with(v.name + ", seed ");
    });
    if (!is_whole && !has_failed)
      fail_input(name, ": not all of its ", v.settings.epochs, " epochs are recorded, as numbers");
  }
}

void check_against(const Recording& recording, const Study& table, const std::string& folder) {
  for (const RecordedVariant& v : recording.variants) {
    const std::string name = str(folder, ": '", v.name, "'");
    const StudyVariant& asked = *nearest_to(v.settings, table.variants);
    if (const auto other = differences(v.settings, asked.settings); !other.empty())
      fail_input(name, " has settings that ", table.name, " does not ask for; the nearest is '",
                 asked.name, "': ", joined(other));
    for (const uint64_t seed : asked.seeds)
      if (std::ranges::none_of(v.seeds, [&](const SeedOutcome& s) { return s.seed == seed; }))
        fail_input(name, ": seed ", seed, " is missing");
  }
}

}  // namespace focus
