// focus train, focus resume.
#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <sstream>

#include "cli/command.h"
#include "error.h"
#include "report/progress.h"
#include "study/engine.h"
#include "suggest.h"
#include "tasks/text.h"
#include "train/inputs.h"
#include "train/interrupt.h"

namespace focus {

namespace {

namespace fs = std::filesystem;

// "even-pairs, topk(5)"
std::string label_of(const RunSettings& s) {
  const std::string objective =
      s.objective == Objective::classify ? "" : str(", ", name_of(s.objective));
  return s.task + objective + ", " + attention_text(s);
}

// Shows the epochs as they come.
class Watch {
 public:
  explicit Watch(const TrainPlan& plan) : progress_(options(plan)) {}

  void operator()(const StudyProgress& p) {
    saw_news_ = true;
    if (p.row)
      progress_.report(int(p.run->seed_index),
                       {p.row->seed, p.row->epoch, p.row->train_loss, p.row->train_accuracy});
  }
  bool saw_news() const { return saw_news_; }

 private:
  static Progress::Options options(const TrainPlan& plan) {
    Progress::Options options;
    options.label = label_of(plan.settings);
    options.runs = int(plan.seeds.size());
    options.epochs = plan.settings.epochs;
    options.plain_seconds = 1;
    return options;
  }

  Progress progress_;
  bool saw_news_ = false;
};

std::string table_of_last_epochs(const TrainPlan& plan, const std::vector<EpochMetrics>& rows) {
  std::ostringstream text;
  text << "     seed  epoch  train loss  accuracy  held-out loss  accuracy\n" << std::fixed;
  for (uint64_t seed : plan.seeds) {
    const auto last = std::find_if(rows.rbegin(), rows.rend(),
                                   [&](const EpochMetrics& row) { return row.seed == seed; });
    if (last == rows.rend()) continue;
    text << std::setw(9) << seed << std::setw(7) << last->epoch << std::setprecision(2)
         << std::setw(12) << loss_text(last->train_loss) << std::setw(8) << last->train_accuracy
         << " %" << std::setw(15) << loss_text(last->val_loss) << std::setw(8) << last->val_accuracy
         << " %\n";
  }
  return text.str();
}

// What ended runs early, as one line: "seed 3, epoch 2, …; 9 runs are finished".
[[noreturn]] void fail_of(const std::vector<std::string>& failures, size_t runs) {
  std::string text = failures.front();
  const auto tell = [&](size_t n, const char* what) {
    if (n > 0) text += str("; ", n, n == 1 ? " run " : " runs ", what);
  };
  tell(failures.size() - 1, "more ended so");
  tell(runs - failures.size(), "went on to the end");
  fail_run(text);
}

// Trains or resumes: `work` does it. Returns the exit status.
template <class Work>
int watch_and_report(const TrainPlan& plan, const Work& work) {
  TrainResult result;
  bool anything_new = false;
  {
    Watch watch(plan);
    StudyObserver observer;
    observer.stop = &catch_interrupts();
    observer.on_epoch = std::ref(watch);
    observer.on_note = [](const std::string& line) { print(line + "\n"); };
    result = work(observer);
    anything_new = watch.saw_news();
  }
  const std::string dir = plan.out.string(), word = shell_word(dir);
  if (result.finished && !anything_new) {
    print(str(dir, " is finished: all ", plan.seeds.size(), " run(s) have ", plan.settings.epochs,
              " epochs; 'focus resume ", word, " --epochs N' goes on to N\n"));
    return 0;
  }
  print(label_of(plan.settings) + "\n" + table_of_last_epochs(plan, result.metrics));
  if (!result.finished) {
    print(str("interrupted and saved; go on with: focus resume ", word, "\n"));
    return 130;
  }
  if (!result.failures.empty()) fail_of(result.failures, plan.seeds.size());
  print(str("written to ", dir, ": metrics.csv, settings.json, seed-S/{last,best}.safetensors\n",
            "more epochs: focus resume ", word, " --epochs ", 2 * plan.settings.epochs,
            "\nits weights: focus show ",
            shell_word(str(dir, "/seed-", plan.seeds[0], "/best.safetensors")), "\n"));
  return 0;
}

std::string absolute_file(const std::string& name) {
  return name.empty() ? name : fs::absolute(name).lexically_normal().string();
}

// What stands after a setting's flag, for the help; "" where nothing does.
const char* kind_of(const std::string& name) {
  if (name == "freeze-qk") return "";
  if (name == "train-data" || name == "val-data") return "FILE";
  if (name == "text-data") return "DIR";
  for (const char* word :
       {"task", "attention", "activation", "optimizer", "precision", "objective"})
    if (name == word) return "NAME";
  for (const char* number :
       {"dropout", "lr", "lr-decay", "clip", "score-scale", "qk-scale", "qk-rate"})
    if (name == number) return "X";
  return name.ends_with("epsilon") ? "X" : "N";
}

struct Train {
  TextMap given;  // the settings, in text: their defaults depend on the task
  std::string device = "cpu", step_kernel = "auto", out;
  std::optional<uint64_t> seed;
  double keep_at_loss = 0;
  int seeds = 1, threads = default_threads(), gpus = 0;
};

RunSettings settings_of(const TextMap& given) {
  RunSettings settings = RunSettings::defaults_for(find_task(given.at("task")));
  for (const SettingField& field : setting_fields()) {
    const auto text = given.find(field.name);
    if (text != given.end()) field.set(settings, text->second);
  }
  settings.train_data = absolute_file(settings.train_data);
  settings.val_data = absolute_file(settings.val_data);
  settings.text_data = absolute_file(settings.text_data);
  DataRecords records;
  std::set<std::string> names;
  for (const auto& [name, text] : given) names.insert(name);
  read_records(settings, records);
  take_sizes_of_files(settings, records, names);
  if (!uses_k(settings.attention)) {  // so that scripts may give every mechanism the same flags
    if (settings.k < 0) fail_input("--k ", settings.k, " is negative");
    settings.k = 0;
  }
  return settings;
}

fs::path default_folder(const RunSettings& s) {
  std::string name = "train-" + s.task + "-";
  if (s.objective == Objective::causal) name += "causal-";
  name += name_of(s.attention);
  if (uses_k(s.attention)) name += str("-k", s.k);
  if (s.global_tokens > 0) name += str("-g", s.global_tokens);
  if (s.score_scale != 1) name += str("-scale", number_text(s.score_scale));
  return fs::path("out") / name;
}

int train_command(const Train& o) {
  TrainPlan plan;
  plan.device = o.device, plan.step_kernel = o.step_kernel, plan.threads = o.threads;
  plan.gpus = o.gpus, plan.keep_at_loss = o.keep_at_loss;
  plan.settings = settings_of(o.given);
  if (o.seed && *o.seed > uint64_t(largest_seed) - uint64_t(o.seeds) + 1)
    fail_input("--seed ", *o.seed, ": --seeds ", o.seeds, " more of them leave the range of seeds");
  plan.seeds = choose_seeds(o.seeds, o.seed ? &*o.seed : nullptr);
  plan.out = o.out.empty() ? default_folder(plan.settings) : fs::path(o.out);
  return watch_and_report(plan,
                          [&](const StudyObserver& observer) { return train(plan, observer); });
}

struct Resume {
  std::string folder, device;
  int epochs = 0, threads = 0;  // 0, "": as before
  int gpus = 0;
};

int resume_command(const Resume& o) {
  TrainPlan plan = read_plan(o.folder);
  if (o.epochs > 0) plan.settings.epochs = o.epochs;
  return watch_and_report(plan, [&](const StudyObserver& observer) {
    return resume(o.folder, o.epochs, o.threads, observer, o.device, o.gpus);
  });
}

// A flag for a setting. The default is the paper's: a number where all tasks have the same.
void add_setting(CLI::App& app, const SettingField& field, TextMap& given) {
  const std::string name = field.name, flag = "--" + name;
  if (name == "freeze-qk") {
    add_flag(
        app, flag, [&given] { given["freeze-qk"] = "yes"; }, field.help);
    return;
  }
  std::set<std::string> defaults;
  for (const Task& task : all_tasks()) defaults.insert(field.get(RunSettings::defaults_for(task)));
  //@ from 15
  defaults.insert(field.get(RunSettings::defaults_for(text_task())));
  //@ end
  const bool has_default = name != "task" && name != "k";
  std::string help = field.help;
  if (has_default && defaults.size() > 1) help += " (default: the task's)";
  const Option option =
      add_value(app, flag, kind_of(name), help, [&given, &field](const std::string& text) {
        if (text.empty() && std::string_view(field.name).ends_with("-data"))
          fail_input("the name is empty");
        RunSettings settings;
        field.set(settings, text);  // InputError if it is no value of that kind
        given[field.name] = text;
      });
  if (has_default && defaults.size() == 1) option->default_str(*defaults.begin());
  option->required(name == "task");
}

std::string table_of_tasks() {
  std::ostringstream text;
  text << "Tasks, and the paper's settings for each, which are the defaults:\n"
       << "  task                 train  held-out  length  blocks   lr  lr-decay  epochs  batch\n";
  std::vector<const Task*> tasks;
  for (const Task& task : all_tasks()) tasks.push_back(&task);
  //@ from 15
  tasks.push_back(&text_task());
  //@ end
  for (const Task* task : tasks) {
    const TaskDefaults& d = task->defaults;
    text << "  " << std::left << std::setw(19) << task->name << std::right << std::setw(7)
         << d.train_size << std::setw(10) << d.val_size << std::setw(8) << d.length << std::setw(8)
         << d.blocks << std::setw(5) << number_text(d.lr) << std::setw(10)
         << number_text(d.lr_decay) << std::setw(8) << d.epochs << std::setw(7) << d.batch << "\n";
  }
  return text.str();
}

}  // namespace

void add_train_commands(CLI::App& focus) {
  const auto [training, t] =
      add_command(focus, "train", "train a model, for one seed or several", train_command);
  for (const SettingField& field : setting_fields())
    if (field.is_flag) add_setting(training, field, t.given);
  add_whole(training, "--seed", t.seed, 0, largest_seed,
            "the first seed (default: the paper's ten)");
  add_whole(training, "--seeds", t.seeds, 1, 1000,
            "how many runs: seeds S, S+1, … or the paper's first N");
  add_threads(training, t.threads);
  add_device(training, t.device);
  add_gpus(training, t.gpus);
  add_text(training, "--step-kernel", "auto|off", t.step_kernel,
           "cuda: auto lets one kernel make all steps where the model allows");
  add_number(training, "--keep-at-loss", t.keep_at_loss, 1e-9, 1e9,
             "keeps DIR/seed-S/at-loss.safetensors, after the first epoch whose training loss is "
             "at most X")
      ->default_str("");
  add_file(training, "--out", "DIR", t.out,
           "where the run goes (default: out/train-TASK-ATTENTION-kK)");
  add_footer(
      training,
      table_of_tasks() +
          "\nWrites DIR/metrics.csv, DIR/settings.json and "
          "DIR/seed-S/{last,best}.safetensors.\n"
          "Ctrl-C finishes the step and saves; 'focus resume DIR' goes on.\n"
          "--attention full accepts --k and ignores it.\n"
          "--precision 3xtf32, tf32 and bf16 take a GPU's tensor cores for products of models with "
          "d-model and\nd-mlp 64 and one head; weights, sums, chosen keys and all else remain "
          "float32. Evaluation uses it too;\n'focus resume' goes on in it.\n"
          //@ from 15
          "--task text predicts the next token of a text that 'focus text prepare' has made ready: "
          "--text-data DIR,\n"
          "--objective pooled or causal; an epoch is --train-size windows drawn at random; losses "
          "are nats a token.\n"
          //@ end
          "Example: focus train --task even-pairs --attention topk --k 5 --seeds 3");

  const auto [resuming, r] =
      add_command(focus, "resume", "go on with a run that was interrupted, or add epochs to it",
                  resume_command);
  add_file(resuming, "DIR", "", r.folder, "the folder of the run (--out of 'focus train')")
      ->required();
  add_whole(resuming, "--epochs", r.epochs, 1, 1000000,
            "train to N epochs in all (default: as the run was started)")
      ->default_str("");
  add_whole(resuming, "--threads", r.threads, 1, most_threads,
            "threads to compute with (default: as before)")
      ->default_str("");
  add_device(resuming, r.device)->description("where to compute (default: as before)");
  add_gpus(resuming, r.gpus);
  add_footer(resuming,
             "The result is the same, to the byte, as that of a run that was never stopped.\n"
             "Example: focus resume out/train-even-pairs-topk-k5 --epochs 200");
}

}  // namespace focus
