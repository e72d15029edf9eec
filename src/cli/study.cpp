// focus study, focus study merge, focus study compact.
#include "study/study.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>

#include "cli/command.h"
#include "error.h"
#include "report/progress.h"
#include "report/terminal.h"
#include "study/engine.h"
#include "study/estimate.h"
#include "study/make_recording.h"
#include "study/slurm.h"
#include "study/store.h"
#include "study/summary.h"
#include "suggest.h"
#include "train/interrupt.h"

namespace focus {

namespace {

namespace fs = std::filesystem;

// The last line of a terminal shows how far the study is; above it a line for each run that is
// over. Elsewhere the line comes now and then.
class StudyWatch {
 public:
  explicit StudyWatch(const Study& study) : study_(study) {}
  ~StudyWatch() {
    if (drawn_) std::fputs("\r\x1b[K", stderr);
  }
  StudyWatch(const StudyWatch&) = delete;
  StudyWatch& operator=(const StudyWatch&) = delete;

  void note(const std::string& line) {
    if (drawn_) std::fputs("\r\x1b[K", stderr);
    drawn_ = false;
    print(line + "\n");
  }
  void operator()(const StudyProgress& p) {
    if (drawn_) std::fputs("\r\x1b[K", stderr);
    if (p.run_is_over) std::fprintf(stderr, "%s\n", run_line(p).c_str());
    const double left = p.share > 0 ? p.seconds * (1 - p.share) / p.share : -1;
    const std::string status =
        str(p.runs_over, " of ", p.runs, " runs, ", int(100 * p.share), " %, ",
            duration_text(p.seconds), " gone, ", duration_text(left), " left");
    if (is_terminal(stderr)) {
      std::fprintf(stderr, "%s", status.substr(0, size_t(terminal_width(stderr) - 1)).c_str());
      drawn_ = true;
    } else if (p.seconds >= next_plain_) {
      std::fprintf(stderr, "%s\n", status.c_str());
      next_plain_ = p.seconds + 30;
    }
    std::fflush(stderr);
  }

 private:
  std::string run_line(const StudyProgress& p) const {
    const StudiedVariant& v = (*p.variants)[p.run->variant];
    const std::vector<EpochMetrics>& curve = v.curves[p.run->seed_index];
    std::string line = str(v.name, ", seed ", p.run->seed, ": ");
    if (int(curve.size()) < study_.variants[p.run->variant].settings.epochs)
      return str(line, "ended with NaN or Inf in epoch ", curve.size() + 1);
    const std::optional<int> epochs = epochs_to_target(v)[p.run->seed_index];
    line += epochs ? str(target_description(v.target), " at epoch ", *epochs)
                   : str("never reached ", target_description(v.target));
    char held_out[32];
    std::snprintf(held_out, sizeof held_out, "%.2f", curve.back().val_accuracy);
    return str(line, ", held-out ", held_out, " %, ", duration_text(curve.back().seconds));
  }

  const Study& study_;
  bool drawn_ = false;
  double next_plain_ = 0;
};

struct StudyCommand {
  std::string table, out, device = "cpu";
  int threads = default_threads(), gpus = 0;  // 0: all
  bool dry_run = false, report = false, slurm = false;
  int shard = 1, of_shards = 1;
  std::optional<int> slurm_shards;
};

// "2/3" → 2 of 3
void read_shard(StudyCommand& o, const std::string& text) {
  const size_t slash = text.find('/');
  try {
    if (slash == std::string::npos) fail_input("no slash");
    o.of_shards = int(read_whole(text.substr(slash + 1), 1, int64_t(most_runs)));
    o.shard = int(read_whole(text.substr(0, slash), 1, o.of_shards));
  } catch (const InputError&) {
    fail_input("'", text, "' is not I/N with whole numbers I from 1 to N");
  }
}

// Seconds for what is left: the runs in order, each to the thread that is free first.
double seconds_left(const Study& study, const StudyPlan& plan, const std::vector<EpochCost>& costs,
                    int threads) {
  std::vector<double> busy_until(size_t(threads), 0.0);
  for (size_t i = 0; i < plan.runs.size(); ++i) {
    if (plan.over[i]) continue;
    const size_t v = study.runs[plan.runs[i]].variant;
    *std::min_element(busy_until.begin(), busy_until.end()) +=
        costs[v].alone * (study.variants[v].settings.epochs - plan.epochs_done[i]);
  }
  return *std::max_element(busy_until.begin(), busy_until.end());
}

std::string list_of_runs(const Study& study, const StudyPlan& plan) {
  std::string text;
  for (size_t i = 0; i < plan.runs.size(); ++i) {
    const StudyRun& run = study.runs[plan.runs[i]];
    const StudyVariant& variant = study.variants[run.variant];
    const int epochs = variant.settings.epochs, done = plan.epochs_done[i];
    text += str(plan.over[i] ? "over   "
                : done > 0   ? "begun  "
                             : "to do  ",
                run.folder, "  (", variant.name, ", seed ", run.seed, ", ",
                done > 0 && done < epochs ? str(done, " of ") : "", epochs, " epochs)\n");
  }
  return text;
}

std::string report_of(const StudyOutcome& outcome, const std::string& dir) {
  std::string text = str("\n", summary_table(summarise(outcome.results.variants)));
  for (const auto& [key, value] : outcome.results.notes)
    if (key == "failed" || key == "not over") text += str(key, ": ", value, "\n");
  return str(text, "\nwritten to ", dir, ": results.csv, summary.csv, runs/\n");
}

// When devices are done with what is left.
double seconds_left(const Study& study, const StudyPlan& plan, const std::vector<EpochCost>& costs,
                    const std::vector<Device*>& devices) {
  std::vector<size_t> runs;
  std::vector<int> epochs;
  for (size_t i = 0; i < plan.runs.size(); ++i) {
    if (plan.over[i]) continue;
    runs.push_back(plan.runs[i]);
    epochs.push_back(study.variants[study.runs[plan.runs[i]].variant].settings.epochs -
                     plan.epochs_done[i]);
  }
  const auto groups = groups_of(study, runs, epochs, costs, devices[0]->facts().memory);
  return end_of(deal(groups, int(devices.size())));
}

// "about 3 min on 2 thread(s)". A device is tried out for a moment with each kind of run: only
// where someone asks for the time, or groups are dealt by it.
std::string time_left(const Study& study, const StudyPlan& plan, const StudyOptions& options,
                      StudyObserver& observer, bool asked) {
  const std::vector<Device*>& devices = options.devices;
  if (devices.empty()) {
    observer.costs = measure_epochs(study);
    return str("about ", duration_text(seconds_left(study, plan, observer.costs, options.threads)),
               " on ", options.threads, " thread(s)");
  }
  if (!asked && devices.size() == 1) return "on " + hardware_text(devices);
  observer.costs = measure_epochs(study, devices[0]);
  return str("about ", duration_text(seconds_left(study, plan, observer.costs, devices)), " on ",
             hardware_text(devices));
}

// device: of the machines that Slurm chooses; this one may have none.
int submit_to_slurm(const Study& study, StudyOptions options, const std::string& device, int shards,
                    int gpus) {
  if (options.shards > 1) fail_input("--slurm makes the shards itself: leave --shard out");
  const bool on_cpu = device == "cpu";
  if (on_cpu && gpus > 0) fail_input("--gpus is for --device cuda");
  if (!on_cpu) check_device_name(device), options.device_elsewhere = device;
  start_study(study, options);  // what is wrong is said here, not in a job's log
  char program[4096] = {};
  const ssize_t length = ::readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) fail_input("--slurm: this system does not say where the program is");
  print(submit({program, fs::absolute(options.out).lexically_normal(), shards, options.threads,
                device, std::max(1, gpus)}));
  return 0;
}

int study_command(const StudyCommand& o) {
  // Not for CLI11 to check: it would want them of the commands below as well.
  if (o.table.empty() || o.out.empty())
    fail_input(o.table.empty() ? "FILE" : "--out", " is missing; see 'focus study --help'");
  if (o.dry_run + o.report + o.slurm > 1)
    fail_input("--dry-run, --report and --slurm do different things: give one of them");
  const Study study = read_study(o.table);
  StudyOptions options;
  options.out = o.out, options.threads = o.threads;
  options.shard = o.shard, options.shards = o.of_shards;
  if (o.report) {
    print(report_of(report_study(study, options.out), o.out));
    return 0;
  }
  if (o.slurm) {
    const int most = int(std::min<size_t>(study.runs.size(), 1000));
    // A GPU's runs share its kernels.
    const int shards = o.slurm_shards.value_or(o.device == "cpu" ? std::min(most, 8) : 1);
    if (shards > most) fail_input("--shards: ", shards, " is not between 1 and ", most);
    return submit_to_slurm(study, options, o.device, shards, o.gpus);
  }
  const Devices devices = open_devices(o.device, o.gpus);
  options.devices = pointers(devices);
  if (o.slurm_shards) fail_input("--shards goes with --slurm; a part is --shard I/N");

  const StudyPlan plan = plan_study(study, options);
  const int over = int(std::count(plan.over.begin(), plan.over.end(), true));
  const int left = int(plan.runs.size()) - over;
  std::string head = str(study.variants.size(), " variants, ", study.runs.size(), " runs");
  if (options.shards > 1)
    head += str("; shard ", options.shard, " of ", options.shards, ": ", plan.runs.size());
  if (over > 0) head += str("; ", over, " are over");
  StudyObserver observer;
  if (left > 0)
    head += str("; ", left, " to do, ", time_left(study, plan, options, observer, o.dry_run));
  if (o.dry_run) {
    print(list_of_runs(study, plan) + head + "\n");
    return 0;
  }
  print(head + "\n");

  StudyOutcome outcome;
  {
    StudyWatch watch(study);
    observer.stop = &catch_interrupts();
    observer.on_epoch = std::ref(watch);
    observer.on_note = [&](const std::string& line) { watch.note(line); };
    outcome = run_study(study, options, observer);
  }
  if (!outcome.shard_is_over) {
    print(str("interrupted and saved in ", o.out,
              "; the same command goes on, with --report it tells what is there\n"));
    return 130;
  }
  if (!outcome.is_over) {
    print(str("shard ", options.shard, " of ", options.shards, " is over, in ", o.out,
              "; join all with: focus study merge --out DIR ", shell_word(o.out), " …\n"));
    return 0;
  }
  print(report_of(outcome, o.out));
  return 0;
}

struct Merge {
  std::vector<std::string> parts;
  std::string out;
};

int merge(const Merge& o) {
  print(report_of(merge_study(o.out, {o.parts.begin(), o.parts.end()}), o.out));
  return 0;
}

struct Compact {
  std::vector<std::string> files;
  std::string out, source;
  bool partial = false;
};

int compact(const Compact& o) {
  const Study table = read_study(o.files[0]);
  if (o.files.size() < 2)
    fail_input("name the results after the table: results.csv, or the folder of a study");
  std::vector<StudyResults> results;
  for (size_t i = 1; i < o.files.size(); ++i) {
    const fs::path path = o.files[i];
    results.push_back(read_results(fs::is_directory(path) ? path / "results.csv" : path));
  }
  Recording recording = make_recording(table, results, o.partial);
  recording.notes.insert(recording.notes.begin(), {"table", fs::path(table.name).filename()});
  if (!o.source.empty()) recording.notes.emplace_back("source", o.source);
  write_recording(recording, o.out);
  for (const std::string& name : recording.not_run) print(str("not run: ", name, "\n"));
  print(str(recording.variants.size(), " of ", table.variants.size(), " variants written to ",
            o.out, ": curves.csv, seeds.csv\n"));
  return 0;
}

}  // namespace

void add_study_commands(CLI::App& focus) {
  const auto [study, o] =
      add_command(focus, "study", "make all runs that a table describes", study_command);
  add_file(study, "FILE", "", o.table, "the table");
  add_file(study, "--out", "DIR", o.out,
           "where the results go (required); what is there already is not made again");
  add_threads(study, o.threads);
  add_device(study, o.device);
  add_gpus(study, o.gpus);
  add_flag(study, "--dry-run", o.dry_run,
           "say which runs there are and how long they take, and do nothing");
  add_flag(study, "--report", o.report,
           "write results.csv and summary.csv of what is there, also while runs go on");
  add_value(study, "--shard", "I/N",
            "a part of the runs, one of N; join the parts with 'focus study merge'",
            [&study = o](const std::string& text) { read_shard(study, text); });
  add_flag(study, "--slurm", o.slurm,
           "submit the study to Slurm, as an array of shards and a job that joins them");
  add_whole(study, "--shards", o.slurm_shards, 1, 1000,
            "with --slurm: how many shards, each with --threads (default: up to 8, on a GPU 1)");
  add_footer(
      study,
      "FILE is a table (CSV): a header that names settings, a row for each group of runs.\n"
      "A cell may hold several values, separated by blanks or '|'; an empty one means the\n"
      "task's default. Columns: the flags of 'focus train', and\n"
      "  seeds, seed   how many runs (default 3); the first seed, or a list\n"
      "  target        95% (of the training set right, the default), or a training loss\n"
      "  task,       attention, k,   blocks, seeds\n"
      "  even-pairs, full,       ,   2|5,    3\n"
      "  even-pairs, topk,      5 9, 2|5,    3\n"
      "Writes DIR/results.csv, DIR/summary.csv, and a folder for each run. Ctrl-C and kills\n"
      "lose seconds: the same command goes on. On a GPU (--device cuda) runs that differ only in\n"
      "rates, epochs and seed are made together; several GPUs take whole groups of them, the\n"
      "longest first. data/README.md says more.");

  const auto [merging, m] =
      add_command(study, "merge", "join the folders of shards into one study", merge);
  add_texts(merging, "PART", "", m.parts, "the folders of the shards")->required();
  add_file(merging, "--out", "DIR", m.out, "where the whole study goes")->required();
  add_footer(merging,
             "The result is what one machine would have written.\n"
             "Example: focus study merge --out whole part-1 part-2");

  const auto [compacting, c] = add_command(
      study, "compact", "medians, quartiles and each seed's outcome of a large study", compact);
  add_texts(compacting, "FILE", "", c.files,
            "the table, then results.csv of studies that made its runs, or their folders")
      ->required();
  add_file(compacting, "--out", "DIR", c.out, "where curves.csv and seeds.csv go")->required();
  add_flag(compacting, "--partial", c.partial,
           "record what is there, and say which variants are not");
  add_text(compacting, "--source", "TEXT", c.source,
           "a note on where the runs come from: a commit, say");
  add_footer(
      compacting,
      "results.csv has a line for each epoch of each run: too large to keep beside a lesson at\n"
      "the paper's scale. curves.csv has the quartiles over the seeds (of long runs at most 60\n"
      "epochs), seeds.csv what each seed came to. Variants are found by their settings. One that\n"
      "is missing, has other epochs or lacks a seed is named, and nothing is written.\n"
      "Example: focus study compact paper.csv part-1 part-2 --out results/paper");
}

}  // namespace focus
