#include "train/trainer.h"

#include <algorithm>
#include <deque>
#include <mutex>

#include "files/atomic_file.h"
#include "files/folder.h"
#include "train/memory.h"
#include "train/run.h"
#include "train/run_group.h"
#include "train/saver.h"
#include "train/scheduler.h"

namespace focus {

namespace fs = std::filesystem;

namespace {

class Trainer {
 public:
  Trainer(const TrainPlan& plan, const TrainObserver& observer)
      : plan_(plan),
        observer_(observer),
        metrics_(plan.out / "metrics.csv"),
        device_(open_device(plan.device)) {}

  void make_runs() {
    const RunSettings& s = plan_.settings;
    const Task& task = find_task(s.task);
    const bool same_data =
        data_seed(task, 0) == data_seed(task, 1) || (!s.train_data.empty() && !s.val_data.empty());
    std::shared_ptr<const RunData> data;
    for (uint64_t seed : plan_.seeds) {
      if (!data || !same_data) data = make_run_data(s, seed);
      if (runs_.empty()) {
        const int runs = int(plan_.seeds.size());
        if (!device_)
          check_memory(s.model_settings(data->train.vocabulary, data->train.length), s.optimizer,
                       std::min(s.batch, data->train.rows), runs, std::min(plan_.threads, runs));
      }
      runs_.emplace_back(s, seed, data);
    }
  }

  // Known before anything is written: can the device do it, and do the runs fit there?
  void try_device() {
    const RunSettings& s = plan_.settings;
    check_precision(s, device_
                           ? device_->precision_problem(s.precision, runs_[0].model().settings())
                           : "--device cpu");
    if (!device_) return;
    std::vector<Run*> all;
    for (Run& run : runs_) all.push_back(&run);
    RunGroup(*device_, all, by_kernel());
  }

  // Writes the folder of new runs.
  void start_folder(FolderLock& lock) {
    for (const char* file : {"settings.json", "metrics.csv"}) lock.will_make(plan_.out / file);
    for (const Run& run : runs_) {
      lock.will_make(folder(run));
      lock.will_make(folder(run) / "last.safetensors");
    }
    write_settings();
    metrics_.write();
    std::vector<Saver::Item> items;
    for (size_t i = 0; i < runs_.size(); ++i) items.push_back(item_of(i, std::nullopt));
    keep(items);
  }

  // Takes the state of the runs from their folder and writes nothing. A kill can come before the
  // first checkpoint of a run, which then begins anew.
  void restore() {
    const auto checkpoint = [&](const Run& run) { return folder(run) / "last.safetensors"; };
    const bool started = std::any_of(runs_.begin(), runs_.end(),
                                     [&](const Run& run) { return fs::exists(checkpoint(run)); });
    if (started || fs::exists(plan_.out / "metrics.csv")) metrics_.load();
    const std::vector<EpochMetrics> rows = metrics_.rows();
    for (const EpochMetrics& row : rows) seconds_before_ = std::max(seconds_before_, row.seconds);
    for (Run& run : runs_) {
      const bool has_rows = std::any_of(rows.begin(), rows.end(),
                                        [&](const auto& row) { return row.seed == run.seed(); });
      if (has_rows || fs::exists(checkpoint(run))) run.restore(Safetensors::read(checkpoint(run)));
      metrics_.drop_after(run.seed(), run.epochs_done());
    }
    for (const Run& run : runs_)
      if (run.epochs_done() > plan_.settings.epochs)
        fail_input("--epochs ", plan_.settings.epochs, ": seed ", run.seed(), " has ",
                   run.epochs_done(), " already; give at least as many");
  }

  bool finished() const {
    return std::all_of(runs_.begin(), runs_.end(),
                       [&](const Run& run) { return run.epochs_done() >= plan_.settings.epochs; });
  }
  TrainResult result() const { return {finished(), metrics_.rows()}; }

  void write_settings() const {
    write_file_atomically(plan_.out / "settings.json", plan_text(plan_));
  }

  // What restore() took is not all there if a kill came early; from now on it is.
  void complete_folder() const {
    remove_leftovers(plan_.out);
    write_settings();
    for (const Run& run : runs_) {
      remove_leftovers(folder(run));
      if (!fs::exists(folder(run) / "last.safetensors")) save(run, run.checkpoint(), "last");
    }
  }

  TrainResult go() {
    const std::atomic<bool> never{false};
    const std::atomic<bool>& stop = observer_.stop ? *observer_.stop : never;
    if (device_) {
      go_on_device(stop);
      return result();
    }
    const auto after = [this](size_t i, std::optional<EpochMetrics> row) {
      if (row) row->seconds += seconds_before_;
      keep({item_of(i, row)});
      const std::lock_guard lock(callback_mutex_);
      if (row && observer_.on_epoch) observer_.on_epoch(*row);
    };
    run_side_by_side(runs_, plan_.settings.epochs, plan_.threads, stop, after);
    return result();
  }

 private:
  // An epoch is written while the next one is computed.
  void go_on_device(const std::atomic<bool>& stop) {
    if (observer_.on_note) observer_.on_note(note());
    Saver saver([this](const std::vector<Saver::Item>& items) { keep(items); });
    run_together(*device_, runs_, plan_.settings.epochs, by_kernel(), stop,
                 [&](size_t i, std::optional<EpochMetrics> row) {
                   if (row) row->seconds += seconds_before_;
                   saver.put(item_of(i, row));
                   if (row && observer_.on_epoch) observer_.on_epoch(*row);
                 });
    saver.finish();
  }

  Saver::Item item_of(size_t i, const std::optional<EpochMetrics>& row) const {
    return {i, row, row && runs_[i].is_best(), runs_[i].checkpoint()};
  }

  // First the lines, then the checkpoints: killed in between, a resumed run makes the epoch again
  // and replaces the line. The checkpoints of several runs in several threads, as they mostly wait
  // for the disk.
  void keep(const std::vector<Saver::Item>& items) {
    std::vector<EpochMetrics> rows;
    for (const Saver::Item& item : items)
      if (item.row) rows.push_back(*item.row);
    if (!rows.empty()) metrics_.add(rows);
    Workers workers(int(std::min<size_t>(items.size(), 4)));
    workers.run(int(items.size()), [&](int i, int) {
      const Saver::Item& item = items[size_t(i)];
      const Run& run = runs_[item.run];
      if (item.is_best) save(run, item.checkpoint, "best");
      save(run, item.checkpoint, "last");
    });
  }

  // Why the device's step kernel does not make the steps; "" if it does.
  std::string kernel_problem() {
    if (plan_.step_kernel == "off") return "--step-kernel off";
    return step_kernel_problem(*device_, runs_[0]);
  }
  bool by_kernel() { return kernel_problem().empty(); }
  std::string note() {
    const std::string problem = kernel_problem();
    const Precision precision = plan_.settings.precision;
    return str(problem.empty() ? "steps: one kernel makes all of an epoch (one launch)"
                               : "steps: operation by operation, recorded once (" + problem + ")",
               precision == Precision::fp32 ? "" : str(", products in ", name_of(precision)));
  }

  fs::path folder(const Run& run) const { return plan_.out / str("seed-", run.seed()); }

  void save(const Run& run, const Safetensors& checkpoint, const char* name) const {
    make_folder(folder(run));
    checkpoint.write(folder(run) / str(name, ".safetensors"));
  }

  TrainPlan plan_;
  TrainObserver observer_;
  MetricsFile metrics_;
  std::unique_ptr<Device<float>> device_;  // nullptr: the CPU
  std::deque<Run> runs_;
  std::mutex callback_mutex_;
  double seconds_before_ = 0;
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
  if (fs::exists(folder / "settings.json"))
    fail_input(out, " already holds a run: choose another folder, or 'focus resume ",
               folder.string(), "'");
  for (const auto& entry : fs::directory_iterator(folder))
    if (!is_leftover(entry.path())) fail_input(out, " is not empty: choose another folder");
}

}  // namespace

TrainResult train(const TrainPlan& plan, const TrainObserver& observer) {
  check_plan(plan);
  check_unused(plan.out);
  Trainer trainer(plan, observer);
  trainer.make_runs();
  trainer.try_device();
  FolderLock lock = FolderLock::make(plan.out);
  check_unused(plan.out);  // another process may have begun there since
  trainer.start_folder(lock);
  lock.keep();
  return trainer.go();
}

TrainResult resume(const fs::path& dir, int epochs, int threads, const TrainObserver& observer,
                   const std::string& device) {
  read_plan(dir);  // says so if there is no run
  const FolderLock lock = FolderLock::of(dir);
  TrainPlan plan = read_plan(dir);
  if (epochs > 0) plan.settings.epochs = epochs;
  if (threads > 0) plan.threads = threads;
  if (!device.empty()) plan.device = device;
  Trainer trainer(plan, observer);
  trainer.make_runs();
  trainer.restore();
  if (trainer.finished()) return trainer.result();
  trainer.try_device();
  trainer.complete_folder();
  return trainer.go();
}

}  // namespace focus
