// Joining the folders of shards: like a study that takes its runs from other folders.
#include <set>

#include "study/engine.h"
#include "study/store.h"

namespace focus {

namespace fs = std::filesystem;

namespace {

std::set<std::string> folders_of(const Study& study) {
  std::set<std::string> folders;
  for (const StudyRun& run : study.runs) folders.insert(run.folder);
  return folders;
}

void check_same_study(const Study& study, const StudyStore& first, const StudyStore& part) {
  const Study other = part.study();
  if (folders_of(other) == folders_of(study)) {
    bool same = true;
    for (size_t v = 0; v < study.variants.size(); ++v)
      same = same && study.variants[v].name == other.variants[v].name &&
             study.variants[v].settings.epochs == other.variants[v].settings.epochs;
    if (same) return;
  }
  fail_input(part.folder().string(), ": its study.csv describes other runs than that of ",
             first.folder().string(), "; these are parts of different studies");
}

}  // namespace

StudyOutcome merge_study(const fs::path& out, const std::vector<fs::path>& parts) {
  if (parts.empty()) fail_input("merge: name the folders of the shards");
  std::vector<StudyStore> stores;
  for (const fs::path& part : parts) {
    stores.emplace_back(part);
    if (!stores.back().exists())
      fail_input(part.string(), ": holds no study: it has no study.txt; make this shard first");
  }
  Study study = stores[0].study();
  Provenance provenance = stores[0].provenance();
  for (size_t p = 1; p < stores.size(); ++p) {
    check_same_study(study, stores[0], stores[p]);
    join(provenance, stores[p].provenance(), parts[p].string());
  }

  take_sizes_of_files(study, provenance.data);
  StudyStore target(out);
  target.check(study, provenance);
  stores.insert(stores.begin(), target);  // what is there already needs no copy
  StudyOutcome outcome;
  outcome.results.variants = empty_variants(study);
  std::vector<size_t> sources;
  Notes failures;
  for (size_t i = 0; i < study.runs.size(); ++i) {
    const StudyRun& run = study.runs[i];
    const StudyVariant& variant = study.variants[run.variant];
    RunState best;  // of those that are not over the one that came furthest
    std::string where;
    for (size_t p = 0; p < stores.size() && !best.over; ++p) {
      RunState state = stores[p].state(study, run);
      if (!state.over && state.rows.size() <= best.rows.size()) continue;
      best = std::move(state);
      where = stores[p].folder().string();
      if (best.over) sources.push_back(p);
    }
    if (!best.over && where.empty())
      fail_input("the run ", run.folder, " (run ", i + 1, " of ", study.runs.size(),
                 ") is in none of these folders: a shard is missing");
    if (!best.over)
      fail_input(where, ": the run ", run.folder, " has ", best.rows.size(), " of ",
                 variant.settings.epochs, " epochs: run this shard to its end first");
    outcome.results.variants[run.variant].curves[run.seed_index] = best.rows;
    if (!best.failure.empty()) failures.emplace_back("failed", variant.name + ", " + best.failure);
  }

  FolderLock lock = FolderLock::make(out);
  target.check(study, provenance);  // another process may have begun there since
  target.begin(study, provenance, lock);
  lock.keep();
  for (size_t i = 0; i < sources.size(); ++i)
    if (sources[i] != 0) target.copy_run(study, study.runs[i], stores[sources[i]]);
  outcome.results.notes = notes_of(study, target.provenance());
  outcome.results.notes.insert(outcome.results.notes.end(), failures.begin(), failures.end());
  target.write_results(study, outcome.results);
  outcome.shard_is_over = outcome.is_over = true;
  return outcome;
}

}  // namespace focus
