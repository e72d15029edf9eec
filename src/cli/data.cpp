// focus data generate, focus data verify.
#include <filesystem>
#include <iomanip>
#include <optional>

#include "cli/command.h"
#include "error.h"
#include "files/data_file.h"
#include "tasks/dataset.h"
#include "train/settings.h"

namespace focus {

namespace {

struct Generate {
  const Task* task = nullptr;
  int count = 0;
  std::optional<int64_t> length;
  uint64_t seed = paper_seeds()[0];
  std::string split = "train", out;
};

int generate(const Generate& o) {
  const Task& task = *o.task;
  const int64_t length = o.length.value_or(task.defaults.length);
  if (length < task.shortest_length || length > task.longest_length)
    fail_input("--length: ", length, " is not between ", task.shortest_length, " and ",
               task.longest_length);
  if (o.split != "train" && o.split != "held-out")
    fail_input("--split: '", o.split, "' is not a split: use train or held-out");
  if (std::filesystem::exists(std::filesystem::symlink_status(o.out)))  // before the work
    fail_input("--out ", o.out, " exists already: choose another name or remove it first");
  const std::vector<Example> examples = generate_examples(
      task, o.count, int(length), o.seed, o.split == "train" ? train_split : held_out_split);
  write_data_file(task, o.out, examples);
  print(str("wrote ", examples.size(), " examples of ", task.name, " to ", o.out, "\n"));
  return 0;
}

struct Verify {
  const Task* task = nullptr;
  std::string file;
};

int verify(const Verify& o) {
  const std::vector<Example> examples = read_data_file(*o.task, o.file);
  if (const auto wrong = first_wrong_label(*o.task, examples))
    fail_run(o.file, ", line ", wrong->line, ": the label is ", wrong->written,
             ", but its tokens give ", wrong->computed);
  print(str(o.file, ": ", examples.size(), " examples of ", o.task->name, ", all labels right\n"));
  return 0;
}

void add_task(CLI::App& app, const Task*& task) {
  add_value(app, "--task", "NAME", "which task", [&task](const std::string& name) {
    task = &find_task(name);
  })->required();
}

}  // namespace

void add_data_commands(CLI::App& focus) {
  CLI::App& data = *add_group(focus, "data", "write data files, or check their labels");
  std::string tasks = "Tasks:";
  for (const Task& task : all_tasks()) tasks += " " + task.name;

  const auto [generating, g] =
      add_command(data, "generate", "write a data file of examples drawn at random", generate);
  add_task(generating, g.task);
  add_whole(generating, "--count", g.count, 1, 10'000'000, "how many examples")
      ->default_str("")
      ->required();
  add_whole(generating, "--length", g.length, INT64_MIN, INT64_MAX,
            "tokens of each; list operations: the largest size (default: the paper's)");
  add_whole(generating, "--seed", g.seed, 0, largest_seed, "other seeds give other examples");
  add_text(generating, "--split", "NAME", g.split,
           "train or held-out: what a run with this seed would use");
  add_file(generating, "--out", "FILE", g.out, "the file to write; it must not exist yet")
      ->required();
  add_footer(generating,
             tasks +
                 "\nEvery run of list-operations uses the data of seed 1, other tasks that of the "
                 "run's seed.\nExample: focus data generate --task parity --count 1000 --length 40 "
                 "--seed 1 --out parity.tsv");

  const auto [verifying, v] =
      add_command(data, "verify", "recompute every label of a data file from its tokens", verify);
  add_task(verifying, v.task);
  add_file(verifying, "FILE", "", v.file, "the data file: Source<TAB>Target, one example a line")
      ->required();
  add_footer(
      verifying,
      tasks +
          "\nA wrong label: exit status 1, with the first wrong line (the header is line 1).\n"
          "A file that is not well formed: exit status 2.\n"
          "Example: focus data verify --task parity parity.tsv");
}

}  // namespace focus
