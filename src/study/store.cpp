#include "study/store.h"

#include <algorithm>
#include <set>

#include "error.h"
#include "files/atomic_file.h"
#include "study/names.h"
#include "study/summary.h"

namespace focus {

namespace fs = std::filesystem;

namespace {

constexpr size_t most_bytes = size_t{1} << 30;

}  // namespace

// Threads do not change a result: settings.json says 1 whatever was used, so that equal runs leave
// equal bytes. Nor do epochs make another run: they may grow later.
TrainPlan StudyStore::plan_of(const Study& study, const StudyRun& run) const {
  TrainPlan plan;
  plan.settings = study.variants[run.variant].settings;
  plan.seeds = {run.seed};
  plan.out = folder_ / "runs" / run.folder;
  return plan;
}

std::shared_ptr<RunFolder> StudyStore::folder(const Study& study, const StudyRun& run) const {
  return std::make_shared<RunFolder>(plan_of(study, run));
}

bool StudyStore::exists() const {
  return kind_of(folder_ / "study.txt") != PathKind::missing;
}

Study StudyStore::study() const {
  return read_study(folder_ / "study.csv");
}

Provenance StudyStore::provenance() const {
  return read_provenance(folder_ / "study.txt");
}

void StudyStore::check(const Study& study, const Provenance& mine) const {
  const std::string dir = folder_.string();
  const PathKind kind = kind_of(folder_);
  if (kind == PathKind::missing) return;
  if (kind == PathKind::file) fail_input(dir, " is a file, not a folder");
  if (!exists()) {
    // A kill may have left this table alone, or a temporary file.
    const auto is_ours = [&](const fs::path& path) {
      if (path.filename() == "study.csv") return read_file(path, most_bytes) == study.text;
      return is_leftover(path) || (path.filename() == "runs" && fs::is_empty(path));
    };
    for (const auto& entry : fs::directory_iterator(folder_))
      if (!is_ours(entry.path()))
        fail_input(dir, " holds other files and no study: choose another folder");
    return;
  }
  Provenance all = mine;
  join(all, provenance(), dir);
  if (kind_of(folder_ / "runs") == PathKind::missing) return;
  std::set<std::string> known;
  for (const StudyRun& run : study.runs) known.insert(run.folder);
  for (const auto& entry : fs::directory_iterator(folder_ / "runs"))
    if (!known.contains(entry.path().filename().string()))
      fail_input(dir, " holds results of another study: ", study.name,
                 " does not describe the run ", entry.path().filename().string(),
                 "; choose another folder");
}

void StudyStore::begin(const Study& study, const Provenance& mine, FolderLock& lock) {
  remove_leftovers(folder_);
  for (const char* file : {"study.csv", "study.txt", "runs"}) lock.will_make(folder_ / file);
  Provenance all = mine;
  if (exists()) join(all, provenance(), folder_.string());
  make_folder(folder_ / "runs");
  write_file_atomically(folder_ / "study.csv", study.text);
  write_file_atomically(folder_ / "study.txt", provenance_text(all));
}

RunState StudyStore::state(const Study& study, const StudyRun& run) const {
  const TrainPlan plan = plan_of(study, run);
  RunFolder folder(plan);
  RunState state;
  try {
    const std::optional<std::string> outcome = folder.outcome();
    state.has_checkpoint = folder.has_checkpoint(run.seed);
    if (!state.has_checkpoint && !outcome) return state;  // it begins anew
    TrainPlan there = read_plan(plan.out);
    const RunSettings& s = plan.settings;
    check_same_data(s.train_data, there.settings.train_data_record, s.train_data_record);
    check_same_data(s.val_data, there.settings.val_data_record, s.val_data_record);
    check_same_data(s.text_data, there.settings.text_data_record, s.text_data_record);
    take_sizes_of_files(there.settings, s);
    if (identity_text(there.settings) != identity_text(s) || there.seeds != plan.seeds)
      fail_input(folder.path("settings.json").string(),
                 ": has other settings than the folder's name");
    folder.load();
    state.rows = folder.rows(run.seed);
    if (outcome && *outcome != finished_text) state.failure = *outcome;
    const int epochs = s.epochs, done = int(state.rows.size());
    state.over = done > epochs || (outcome && (done == epochs || !state.failure.empty()));
    if (done >= epochs) {  // a failure, if any, came later than this study looks
      state.rows.resize(size_t(epochs));
      state.failure.clear();
    }
  } catch (const InputError& error) {
    fail_input(error.what(), "; delete the folder ", plan.out.string(), " to make this run again");
  }
  return state;
}

void StudyStore::copy_run(const Study& study, const StudyRun& run, const StudyStore& from) const {
  constexpr size_t most_checkpoint_bytes = size_t{1} << 32;
  const auto source = from.folder(study, run), target = folder(study, run);
  const auto copy = [&](const char* file) {
    write_file_atomically(target->path(file), read_file(source->path(file), most_bytes));
  };
  target->begin();
  // In this order: after a kill, a run without a checkpoint has not begun, one without an outcome
  // is not over.
  copy("settings.json");
  copy("metrics.csv");
  if (source->has_checkpoint(run.seed))  // one that failed early has none
    write_file_atomically(target->checkpoint(run.seed),
                          read_file(source->checkpoint(run.seed), most_checkpoint_bytes));
  copy("outcome.txt");
}

void StudyStore::write_results(const Study& study, const StudyResults& results) const {
  write_file_atomically(folder_ / "results.csv",
                        results_text(study, results.notes, results.variants));
  write_file_atomically(folder_ / "summary.csv", summary_text(summarise(results.variants)));
}

}  // namespace focus
