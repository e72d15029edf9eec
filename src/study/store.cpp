#include "study/store.h"

#include <algorithm>
#include <set>

#include "error.h"
#include "files/atomic_file.h"
#include "study/names.h"
#include "study/summary.h"
#include "train/trainer.h"

namespace focus {

namespace fs = std::filesystem;

namespace {

constexpr size_t most_bytes = size_t{1} << 30;
constexpr const char* finished_text = "finished";

// settings.json of one run. Threads do not change a result: it says 1 whatever was used, so that
// equal runs leave equal bytes. Nor do epochs make another run: they may grow later.
TrainPlan plan_of(const Study& study, const StudyRun& run) {
  return {study.variants[run.variant].settings, {run.seed}, 1, "cpu", {}};
}

}  // namespace

fs::path StudyStore::run_folder(const StudyRun& run) const {
  return folder_ / "runs" / run.folder;
}

fs::path StudyStore::checkpoint(const StudyRun& run) const {
  return run_folder(run) / str("seed-", run.seed) / "last.safetensors";
}

bool StudyStore::exists() const {
  return fs::exists(folder_ / "study.txt");
}

Study StudyStore::study() const {
  return read_study(folder_ / "study.csv");
}

Origin StudyStore::origin() const {
  return read_origin(folder_ / "study.txt");
}

void StudyStore::check(const Study& study, const Origin& mine) const {
  const std::string dir = folder_.string();
  const PathKind kind = kind_of(folder_);
  if (kind == PathKind::missing) return;
  if (kind == PathKind::file) fail_input(dir, " is a file, not a folder");
  if (!exists()) {
    // A kill may have left the table alone, or a temporary file.
    for (const auto& entry : fs::directory_iterator(folder_))
      if (!is_leftover(entry.path()) && entry.path().filename() != "study.csv")
        fail_input(dir, " holds other files and no study: choose another folder");
    return;
  }
  Origin all = mine;
  join_origins(all, origin(), dir);
  if (!fs::exists(folder_ / "runs")) return;
  std::set<std::string> known;
  for (const StudyRun& run : study.runs) known.insert(run.folder);
  for (const auto& entry : fs::directory_iterator(folder_ / "runs"))
    if (!known.contains(entry.path().filename().string()))
      fail_input(dir, " holds results of another study: ", study.name,
                 " does not describe the run ", entry.path().filename().string(),
                 "; choose another folder");
}

void StudyStore::begin(const Study& study, const Origin& mine, FolderLock& lock) {
  remove_leftovers(folder_);
  for (const char* file : {"study.csv", "study.txt"}) lock.will_make(folder_ / file);
  Origin all = mine;
  if (exists()) join_origins(all, origin(), folder_.string());
  write_file_atomically(folder_ / "study.csv", study.text);
  write_file_atomically(folder_ / "study.txt", origin_text(all));
}

RunState StudyStore::state(const Study& study, const StudyRun& run) const {
  RunState state;
  const fs::path folder = run_folder(run), metrics = folder / "metrics.csv";
  state.has_checkpoint = fs::exists(checkpoint(run));
  const bool has_outcome = fs::exists(folder / "outcome.txt");
  if (!state.has_checkpoint && !has_outcome) return state;  // it begins anew
  const auto advice = str("; delete the folder ", folder.string(), " to make this run again");
  try {
    TrainPlan plan = read_plan(folder);
    const TrainPlan wanted = plan_of(study, run);
    if (identity_text(plan.settings) != identity_text(wanted.settings) ||
        plan.seeds != wanted.seeds)
      fail_input((folder / "settings.json").string(),
                 ": has other settings than the folder's name");
    state.rows = read_metrics(metrics);
    for (size_t i = 0; i < state.rows.size(); ++i)
      if (state.rows[i].epoch != int(i) + 1 || state.rows[i].seed != run.seed)
        fail_input(metrics.string(), ": epoch ", i + 1, " of seed ", run.seed, " is missing");
    const std::string outcome = has_outcome ? read_file(folder / "outcome.txt", most_bytes) : "";
    if (has_outcome && !outcome.starts_with(finished_text))
      state.failure = outcome.substr(0, outcome.find('\n'));
    const int epochs = study.variants[run.variant].settings.epochs;
    const int done = int(state.rows.size());
    state.over = done > epochs || (has_outcome && (done == epochs || !state.failure.empty()));
    if (done >= epochs) {  // a failure, if any, came later than this study looks
      state.rows.resize(size_t(epochs));
      state.failure.clear();
    }
  } catch (const InputError& error) {
    fail_input(error.what(), advice);
  }
  return state;
}

void StudyStore::start_run(const Study& study, const StudyRun& run) const {
  const fs::path folder = run_folder(run);
  for (const fs::path& part : {folder_ / "runs", folder, checkpoint(run).parent_path()})
    make_folder(part);
  remove_leftovers(folder);
  remove_leftovers(checkpoint(run).parent_path());
  // A run that was over goes on when the study asks for more epochs.
  std::error_code ignored;
  fs::remove(folder / "outcome.txt", ignored);
  write_file_atomically(folder / "settings.json", plan_text(plan_of(study, run)));
}

void StudyStore::restore(const StudyRun& run, Run& to) const {
  to.restore(Safetensors::read(checkpoint(run)));
}

// First the rows, then the checkpoint: what comes after the checkpoint is computed again.
void StudyStore::save(const StudyRun& run, const Run& state,
                      const std::vector<EpochMetrics>& rows) const {
  write_file_atomically(run_folder(run) / "metrics.csv", metrics_text(rows));
  state.checkpoint().write(checkpoint(run));
}

void StudyStore::finish(const StudyRun& run) const {
  write_file_atomically(run_folder(run) / "outcome.txt", str(finished_text, "\n"));
}

void StudyStore::save_failure(const StudyRun& run, const std::vector<EpochMetrics>& rows,
                              const std::string& failure) const {
  write_file_atomically(run_folder(run) / "metrics.csv", metrics_text(rows));
  write_file_atomically(run_folder(run) / "outcome.txt", failure + "\n");
}

void StudyStore::copy_run(const StudyRun& run, const StudyStore& from) const {
  constexpr size_t most_checkpoint_bytes = size_t{1} << 32;
  const fs::path source = from.run_folder(run), target = run_folder(run);
  for (const fs::path& part : {folder_ / "runs", target, checkpoint(run).parent_path()})
    make_folder(part);
  if (fs::exists(from.checkpoint(run)))  // one that failed early has none
    write_file_atomically(checkpoint(run), read_file(from.checkpoint(run), most_checkpoint_bytes));
  for (const char* file : {"settings.json", "metrics.csv", "outcome.txt"})  // the outcome last
    write_file_atomically(target / file, read_file(source / file, most_bytes));
}

void StudyStore::write_results(const Study& study, const StudyResults& results) const {
  write_file_atomically(folder_ / "results.csv",
                        results_text(study, results.notes, results.variants));
  write_file_atomically(folder_ / "summary.csv", summary_text(summarise(results.variants)));
}

}  // namespace focus
