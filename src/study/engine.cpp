#include "study/engine.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "clock.h"
#include "study/names.h"
#include "study/shards.h"
#include "study/store.h"
#include "suggest.h"
#include "tasks/dataset.h"
#include "train/inputs.h"
#include "train/memory.h"
#include "train/probe.h"
#include "train/saver.h"
#include "train/scheduler.h"
#include "train/store.h"

namespace focus {

namespace fs = std::filesystem;

namespace {

constexpr const char* older_than_records =
    " is of a program that did not note what its data files held: it goes on with what they hold "
    "now";

// Data sets, made once for all runs that use the same and dropped with the last of them.
class DataShelf {
 public:
  std::shared_ptr<const RunData> get(const RunSettings& s, uint64_t seed) {
    const bool from_files = !s.text_data.empty() || (!s.train_data.empty() && !s.val_data.empty());
    const std::string key =
        str(s.task, "|", s.train_data, "|", s.val_data, "|", s.text_data, "|", s.train_size, "|",
            s.val_size, "|", s.length, "|", uses_k(s.attention) ? s.k : 0, "|", s.global_tokens,
            "|", from_files ? 0 : data_seed(find_task(s.task), seed));
    const std::lock_guard lock(mutex_);
    std::shared_ptr<const RunData> data = shelf_[key].lock();
    if (!data) shelf_[key] = data = make_run_data(s, seed);
    return data;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<const RunData>> shelf_;
};

// Runs the runs of a study. They lie in the folders of a study, all in one folder of the form of
// 'focus train', or in memory only.
class Engine {
 public:
  Engine(const Study& study, const StudyOptions& options, const StudyObserver& observer)
      : study_(study),
        options_(options),
        observer_(observer),
        store_(options.out),
        shard_(runs_of_shard(study, options.shard, options.shards,
                             !options.devices.empty() || !options.device_elsewhere.empty())),
        states_(study.runs.size()) {
    results_.variants = empty_variants(study);
  }

  // --- a study -----------------------------------------------------------------------------------

  StudyOutcome run() {
    if (options_.out.empty()) {
      results_.notes = notes_of(study_, provenance());
      check_sizes();
      train();
      return outcome();
    }
    start();
    train();
    results_.notes = notes_of(study_, store_.provenance());
    StudyOutcome all = outcome();
    if (all.is_over) store_.write_results(study_, all.results);
    return all;
  }

  // Writes study.csv and study.txt, and keeps the folder locked.
  void start() {
    const Provenance mine = provenance();
    store_.check(study_, mine);
    lock_.reset(new FolderLock(FolderLock::make(options_.out)));
    store_.check(study_, mine);  // another process may have begun there since
    read_states();
    check_sizes();
    const bool anything_left =
        std::any_of(shard_.begin(), shard_.end(), [&](size_t i) { return !states_[i].over; });
    if (anything_left || !store_.exists()) store_.begin(study_, mine, *lock_);
    lock_->keep();
  }

  StudyPlan plan() {
    if (!options_.out.empty()) {
      store_.check(study_, provenance());
      read_states();
    }
    check_sizes();
    StudyPlan plan{shard_, {}, {}};
    for (const size_t i : shard_) {
      plan.epochs_done.push_back(int(curve_of(i).size()));
      plan.over.push_back(states_[i].over);
    }
    return plan;
  }

  StudyOutcome report() {
    if (!store_.exists())
      fail_input(options_.out.string(),
                 " holds no study: it has no study.txt; run the study first");
    const Provenance there = store_.provenance();
    take_sizes_of_files(study_, there.data);
    store_.check(study_, there);
    read_states();
    results_.notes = notes_of(study_, there);
    StudyOutcome all = outcome();
    store_.write_results(study_, all.results);
    return all;
  }

  // --- 'focus train': all runs in one folder -----------------------------------------------------

  // Makes the runs; writes nothing.
  void make_runs(const TrainPlan& plan) {
    folder_ = std::make_shared<RunFolder>(plan);
    check_sizes();
    for (size_t i = 0; i < states_.size(); ++i) {
      states_[i].made = new_run(i);
      states_[i].folder = folder_;
    }
  }

  void start_alone(const std::function<void()>& check_unused) {
    lock_.reset(new FolderLock(FolderLock::make(options_.out)));
    check_unused();  // another process may have begun there since
    folder_->announce(*lock_);
    folder_->begin();
    std::vector<Saver::Item> items;
    for (size_t i = 0; i < states_.size(); ++i)
      items.push_back({.run = i, .checkpoint = states_[i].made->checkpoint()});
    write(items);
  }

  // Takes the runs' states from their folder. A kill can come before the first checkpoint of a run,
  // which then begins anew.
  void restore_alone() {
    bool has_metrics = folder_->has_metrics();
    for (const StudyRun& run : study_.runs)
      has_metrics = has_metrics || folder_->has_checkpoint(run.seed);
    if (has_metrics) folder_->load();
    for (size_t i = 0; i < states_.size(); ++i) {
      const uint64_t seed = study_.runs[i].seed;
      if (!folder_->rows(seed).empty() || folder_->has_checkpoint(seed))
        folder_->restore(*states_[i].made);
      take_rows(i);
      const int done = states_[i].made->epochs_done(), epochs = settings_of(i).epochs;
      if (done > epochs)
        fail_input("--epochs ", epochs, ": seed ", seed, " has ", done,
                   " already; give at least as many");
      states_[i].over = done >= epochs;
    }
  }

  // What restore_alone() took is not all there if a kill came early; from now on it is.
  void go_on_alone() {
    folder_->begin();
    std::vector<Saver::Item> items;
    for (size_t i = 0; i < states_.size(); ++i)
      if (!folder_->has_checkpoint(study_.runs[i].seed))
        items.push_back({.run = i, .checkpoint = states_[i].made->checkpoint()});
    if (!items.empty()) write(items);
  }

  bool all_over() const {
    return std::all_of(states_.begin(), states_.end(), [](const State& s) { return s.over; });
  }

  TrainResult train_alone() {
    if (!all_over()) train();
    TrainResult result{all_over(), {}, {}};
    for (size_t i = 0; i < states_.size(); ++i) {
      if (!states_[i].failure.empty()) result.failures.push_back(states_[i].failure);
      result.metrics.insert(result.metrics.end(), curve_of(i).begin(), curve_of(i).end());
    }
    std::ranges::sort(result.metrics, {},
                      [](const EpochMetrics& m) { return std::pair(m.epoch, m.seed); });
    return result;
  }

 private:
  // What is known of a run, from its folder and while it goes on.
  struct State : RunState {
    double opened = 0, saved = 0;  // when
    double seconds_before = 0;
    std::shared_ptr<RunFolder> folder = {};
    std::shared_ptr<Run> made = {};  // before its turn
    std::vector<EpochMetrics> not_saved = {};
  };

  // Who makes the results, of what. Reads the data files, unless the study is older than the
  // records of them.
  Provenance provenance() {
    Provenance mine = options_.device_elsewhere.empty()
                          ? provenance_here(study_, options_.devices)
                          : provenance_elsewhere(study_, options_.device_elsewhere);
    const bool goes_on = !options_.out.empty() && store_.exists();
    mine.has_data_records = !goes_on || store_.provenance().has_data_records;
    const auto has_files = [](const StudyVariant& v) {
      return !v.settings.train_data.empty() || !v.settings.val_data.empty();
    };
    if (mine.has_data_records)
      for (const StudyVariant& v : study_.variants) read_records(v.settings, mine.data);
    else if (observer_.on_note &&
             std::any_of(study_.variants.begin(), study_.variants.end(), has_files))
      observer_.on_note(options_.out.string() + older_than_records);
    take_sizes_of_files(study_, mine.data);
    return mine;
  }

  void read_states() {
    for (size_t i = 0; i < states_.size(); ++i) {
      static_cast<RunState&>(states_[i]) = store_.state(study_, study_.runs[i]);
      curve_of(i) = states_[i].rows;
    }
  }

  const RunSettings& settings_of(size_t run) const {
    return study_.variants[study_.runs[run].variant].settings;
  }
  std::vector<EpochMetrics>& curve_of(size_t run) {
    const StudyRun& r = study_.runs[run];
    return results_.variants[r.variant].curves[r.seed_index];
  }
  double cost_of(size_t run) const {
    const size_t variant = study_.runs[run].variant;
    return variant < observer_.costs.size() ? observer_.costs[variant].alone : 1;
  }

  // Before anything is written: can every variant's products be made in its precision, and fits
  // every one into the memory? (Padding adds a little.)
  void check_sizes() const {
    if (!options_.device_elsewhere.empty()) return;
    const int runs = int(shard_.size()), at_once = std::min(options_.threads, runs);
    for (const StudyVariant& v : study_.variants) {
      const RunSettings& s = v.settings;
      const ModelSettings model = s.model_settings(s.vocabulary(), s.length + s.global_tokens);
      if (s.precision != Precision::fp32)
        check_precision(
            s, options_.devices.empty()
                   ? "--device cpu"
                   : options_.devices[0]->problem(
                         {.model = model, .precision = s.precision, .form = options_.form}));
      if (options_.devices.empty())  // its memory is another, and it says so itself
        check_memory(model, s.optimizer, std::min(s.batch, s.train_size), folder_ ? runs : at_once,
                     at_once);
    }
  }

  std::shared_ptr<Run> new_run(size_t i) {
    const StudyRun& run = study_.runs[i];
    return std::make_shared<Run>(settings_of(i), run.seed, data_.get(settings_of(i), run.seed));
  }

  // The rows that a run's folder knows, as its curve.
  void take_rows(size_t i) {
    const std::vector<EpochMetrics> rows = states_[i].folder->rows(study_.runs[i].seed);
    states_[i].seconds_before = rows.empty() ? 0 : rows.back().seconds;
    const std::lock_guard lock(mutex_);
    curve_of(i) = rows;
  }

  std::shared_ptr<Run> open(size_t i) {
    const StudyRun& run = study_.runs[i];
    State& state = states_[i];
    state.opened = state.saved = seconds_now();
    if (state.made) return std::move(state.made);
    const std::shared_ptr<Run> made = new_run(i);
    if (observer_.on_model && !state.has_checkpoint) observer_.on_model(run, *made);
    if (options_.out.empty()) return made;
    state.folder = store_.folder(study_, run);
    state.folder->begin();
    if (!state.has_checkpoint) return made;
    state.folder->load();
    state.folder->restore(*made);
    take_rows(i);
    if (made->epochs_done() >= settings_of(i).epochs) {  // a kill came just before this was noted
      state.folder->end(finished_text);
      tell(i, true, 0, nullptr);
    }
    return made;
  }

  void after_epoch(size_t i, Run& run, std::optional<EpochMetrics> row) {
    State& state = states_[i];
    const double t = seconds_now();
    if (row) {
      row->seconds = state.seconds_before + t - state.opened;
      row = as_written(*row);
      state.not_saved.push_back(*row);
      const std::lock_guard lock(mutex_);
      curve_of(i).push_back(*row);
    }
    const bool last = row && run.epochs_done() >= settings_of(i).epochs;
    if (state.folder &&
        (last || !row || t - state.saved >= options_.checkpoint_seconds || stop().load())) {
      state.saved = t;
      saver_->put({.run = i,
                   .rows = std::exchange(state.not_saved, {}),
                   .checkpoint = run.checkpoint(),
                   .copies = row ? copies(i, run) : std::vector<const char*>(),
                   .outcome = last && !folder_ ? finished_text : ""});
    }
    if (row && observer_.on_epoch_model) observer_.on_epoch_model(study_.runs[i], run, *row);
    if (last && observer_.on_model) observer_.on_model(study_.runs[i], run);
    if (row) tell(i, last, cost_of(i), &*row);
  }

  // What else an epoch's checkpoint is kept as, in the folder of 'focus train'.
  std::vector<const char*> copies(size_t i, const Run& run) {
    std::vector<const char*> names;
    if (!folder_) return names;
    if (run.is_best()) names.push_back("best");
    const std::lock_guard lock(mutex_);
    const std::vector<EpochMetrics>& curve = curve_of(i);
    const auto there = [&](const EpochMetrics& row) {
      return row.train_loss <= options_.keep_at_loss;
    };
    if (options_.keep_at_loss > 0 &&
        std::find_if(curve.begin(), curve.end(), there) == curve.end() - 1)
      names.push_back("at-loss");
    return names;
  }

  // The checkpoint remains the last good one. 'focus train' notes no outcome: resuming tries again.
  void failed(size_t i, const RunError& error) {
    State& state = states_[i];
    state.failure = error.what();
    for (size_t at; (at = state.failure.find("-nan")) != std::string::npos;)
      state.failure.erase(at, 1);  // the sign of a NaN means nothing, and machines differ in it
    if (state.folder && !folder_)
      saver_->put({.run = i, .rows = std::exchange(state.not_saved, {}), .outcome = state.failure});
    int left = settings_of(i).epochs;
    {
      const std::lock_guard lock(mutex_);
      left -= int(curve_of(i).size());
      if (lock_) lock_->keep();
    }
    tell(i, true, cost_of(i) * left, nullptr);
  }

  // First the lines, then the checkpoints: killed in between, a resumed run makes the epochs again
  // and replaces the lines. Several runs in several threads, as they mostly wait for the disk.
  void write(const std::vector<Saver::Item>& items) {
    std::vector<EpochMetrics> rows;
    for (const Saver::Item& item : items)
      rows.insert(rows.end(), item.rows.begin(), item.rows.end());
    if (folder_) folder_->add(rows);
    Workers workers(int(std::min<size_t>(items.size(), 4)));
    workers.run(int(items.size()), [&](int i, int) {
      const Saver::Item& item = items[size_t(i)];
      RunFolder& folder = *states_[item.run].folder;
      if (!folder_) folder.add(item.rows);
      if (item.checkpoint) folder.save(study_.runs[item.run].seed, *item.checkpoint, item.copies);
      if (!item.outcome.empty()) folder.end(item.outcome);
    });
  }

  // From now on there is something to go on with.
  void keep_folder() {
    const std::lock_guard lock(mutex_);
    if (lock_) lock_->keep();
  }

  void tell(size_t i, bool over, double work, const EpochMetrics* row) {
    const std::lock_guard lock(mutex_);
    states_[i].over = over;
    runs_over_ += over;
    work_done_ += work;
    if (!observer_.on_epoch) return;
    observer_.on_epoch({&results_.variants, &study_.runs[i], row, over, int(shard_.size()),
                        runs_over_, work_done_ / work_, seconds_now() - start_});
  }

  const std::atomic<bool>& stop() const { return observer_.stop ? *observer_.stop : never_; }

  void train() {
    std::vector<size_t> left;
    std::vector<Job> jobs;
    for (const size_t i : shard_) {
      if (states_[i].over) {
        ++runs_over_;
        continue;
      }
      left.push_back(i);
      work_ += cost_of(i) * double(settings_of(i).epochs - int(curve_of(i).size()));
      jobs.push_back({settings_of(i).epochs, [this, i] { return open(i); }});
    }
    start_ = seconds_now();
    if (!options_.out.empty())
      saver_.emplace([this](const std::vector<Saver::Item>& items) {
        write(items);
        keep_folder();
      });
    JobEvents events;
    events.after_epoch = [&](size_t job, Run& run, std::optional<EpochMetrics> row) {
      after_epoch(left[job], run, row);
    };
    events.failed = [&](size_t job, const RunError& error) { failed(left[job], error); };
    events.device_lost = [&](const std::string& line) {
      const std::lock_guard lock(mutex_);
      if (observer_.on_note) observer_.on_note(line);
    };
    make_all(left, jobs, events);
    if (saver_) saver_->finish();
  }

  // The one place that knows where and how runs are made. Job j is run left[j].
  void make_all(const std::vector<size_t>& left, const std::vector<Job>& jobs,
                const JobEvents& events) {
    if (!options_.devices.empty()) {
      if (folder_ && observer_.on_note) observer_.on_note(note_on_steps(*states_[0].made));
      std::vector<int> epochs_left;
      for (const size_t i : left)
        epochs_left.push_back(settings_of(i).epochs - int(curve_of(i).size()));
      const std::vector<Party> parties =
          parties_of(study_, left, epochs_left, observer_.costs, int(options_.devices.size()),
                     options_.devices[0]->facts().memory, options_.threads);
      return run_together(options_.devices, jobs, parties, options_.form, stop(), events);
    }
    run_side_by_side(jobs, options_.threads,
                     options_.together ? int(jobs.size()) : options_.threads, stop(), events);
  }
  std::string note_on_steps(const Run& run) const {
    StepSettings settings = run.step_settings();
    settings.form = options_.form;
    return options_.devices[0]->explain(settings);
  }

  StudyOutcome outcome() {
    StudyOutcome all;
    const auto over = [&](size_t i) { return states_[i].over; };
    all.shard_is_over = std::all_of(shard_.begin(), shard_.end(), over);
    all.is_over = all_over();
    for (size_t i = 0; i < states_.size(); ++i)
      if (!states_[i].failure.empty())
        results_.notes.emplace_back(
            "failed", str(study_.variants[study_.runs[i].variant].name, ", ", states_[i].failure));
    if (const auto n =
            std::count_if(states_.begin(), states_.end(), [](const State& s) { return !s.over; });
        n > 0)
      results_.notes.emplace_back("not over", str(n, " of ", states_.size(), " runs"));
    all.results = results_;
    return all;
  }

  Study study_;
  const StudyOptions options_;
  const StudyObserver& observer_;
  StudyStore store_;
  const std::vector<size_t> shard_;
  std::vector<State> states_;  // [run]; while it goes on a run's state belongs to its thread
  const std::atomic<bool> never_{false};
  DataShelf data_;
  std::shared_ptr<RunFolder> folder_;  // of 'focus train'; a study's runs have one each
  std::unique_ptr<FolderLock> lock_;
  std::mutex mutex_;  // guards the curves in results_, the lock's files, and what follows
  StudyResults results_;
  int runs_over_ = 0;
  double work_ = 0, work_done_ = 0, start_ = 0;
  std::optional<Saver> saver_;  // the last member: its thread uses the others
};

void check_plan(const TrainPlan& plan) {
  check_settings(plan.settings);
  if (plan.seeds.empty()) fail_input("--seeds: at least one seed is needed");
  if (plan.threads < 1 || plan.threads > 1024)
    fail_input("--threads ", plan.threads, " is not between 1 and 1024");
  if (plan.step_kernel != "auto" && plan.step_kernel != "off")
    fail_input("--step-kernel ", plan.step_kernel, ": use auto or off");
}

// A new run may use a folder that is new or empty. (A kill may have left the temporary file of the
// very first write.)
void check_unused(const fs::path& folder) {
  const std::string out = "--out " + folder.string();
  const PathKind kind = kind_of(folder);
  if (kind == PathKind::missing) return;
  if (kind == PathKind::file) fail_input(out, " is a file, not a folder");
  if (kind_of(folder / "settings.json") != PathKind::missing)
    fail_input(out, " already holds a run: choose another folder, or ", "'focus resume ",
               shell_word(folder.string()), "'");
  for (const auto& entry : fs::directory_iterator(folder))
    if (!is_leftover(entry.path())) fail_input(out, " is not empty: choose another folder");
}

// A study of one variant.
Study study_of(const TrainPlan& plan) {
  const std::string mechanism = attention_text(plan.settings);
  Study study{"train", "", {{mechanism, mechanism, "", plan.settings, plan.seeds, {}, 0, {}}}, {}};
  for (size_t s = 0; s < plan.seeds.size(); ++s) study.runs.push_back({0, s, plan.seeds[s], ""});
  return study;
}

StudyOptions options_of(const TrainPlan& plan, const Devices& devices) {
  StudyOptions options;
  options.out = plan.out;
  options.threads = plan.threads;
  options.together = true;
  options.checkpoint_seconds = 0;
  options.devices = pointers(devices);
  options.keep_at_loss = plan.keep_at_loss;
  options.form = plan.step_kernel;
  return options;
}

}  // namespace

StudyOutcome run_study(const Study& study, const StudyOptions& options,
                       const StudyObserver& observer) {
  return Engine(study, options, observer).run();
}

StudyPlan plan_study(const Study& study, const StudyOptions& options) {
  const StudyObserver observer;
  return Engine(study, options, observer).plan();
}

void start_study(const Study& study, const StudyOptions& options) {
  const StudyObserver observer;
  Engine(study, options, observer).start();
}

StudyOutcome report_study(const Study& study, const fs::path& folder) {
  const StudyObserver observer;
  return Engine(study, {.out = folder}, observer).report();
}

TrainResult train(const TrainPlan& plan, const StudyObserver& observer) {
  check_plan(plan);
  check_unused(plan.out);
  const Devices devices = open_devices(plan.device, plan.gpus);
  Engine engine(study_of(plan), options_of(plan, devices), observer);
  TrainPlan recorded = plan;
  recorded.program = program_text(plan.settings);
  engine.make_runs(recorded);
  engine.start_alone([&] { check_unused(plan.out); });
  return engine.train_alone();
}

TrainResult resume(const fs::path& dir, int epochs, int threads, const StudyObserver& observer,
                   const std::string& device_name, int gpus) {
  read_plan(dir);  // says so if there is no run
  const FolderLock lock = FolderLock::of(dir);
  TrainPlan plan = read_plan(dir);
  if (epochs > 0) plan.settings.epochs = epochs;
  if (threads > 0) plan.threads = threads;
  if (!device_name.empty()) plan.device = device_name;
  plan.gpus = gpus;
  if (!check_same_data(plan.settings) && observer.on_note)
    observer.on_note(dir.string() + older_than_records);
  const std::string program = check_same_program(dir.string(), plan.program, plan.settings);
  if (!program.empty() && observer.on_note) observer.on_note(program);
  plan.program = program_text(plan.settings);
  const Devices devices = open_devices(plan.device, plan.gpus);
  Engine engine(study_of(plan), options_of(plan, devices), observer);
  engine.make_runs(plan);
  engine.restore_alone();
  if (!engine.all_over()) engine.go_on_alone();
  return engine.train_alone();
}

}  // namespace focus
