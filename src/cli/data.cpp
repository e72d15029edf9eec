// focus data generate, focus data verify.
#include <filesystem>
#include <iomanip>

#include "cli/command.h"
#include "error.h"
#include "files/data_file.h"
#include "tasks/dataset.h"
#include "train/settings.h"

namespace focus {

namespace {

int generate_command(const Arguments& arguments) {
  const Task& task = find_task(arguments.text("task"));
  const std::string& out = arguments.file("out");
  const int count = int(arguments.whole("count", 1, 10'000'000));
  const int length = arguments.given("length")
                         ? int(arguments.whole("length", task.shortest_length, task.longest_length))
                         : task.defaults.length;
  const uint64_t seed = arguments.seed("seed");
  const std::string& split = arguments.text("split");
  if (split != "train" && split != "held-out")
    fail_input("--split: '", split, "' is not a split: use train or held-out");
  if (std::filesystem::exists(std::filesystem::symlink_status(out)))  // before the work
    fail_input("--out ", out, " exists already: choose another name or remove it first");
  const std::vector<Example> examples =
      generate_examples(task, count, length, seed, split == "train" ? train_split : held_out_split);
  write_data_file(task, out, examples);
  print(str("wrote ", examples.size(), " examples of ", task.name, " to ", out, "\n"));
  return 0;
}

int verify_command(const Arguments& arguments) {
  const Task& task = find_task(arguments.text("task"));
  const std::string& name = arguments.words.at(0);
  const std::vector<Example> examples = read_data_file(task, name);
  if (const auto wrong = first_wrong_label(task, examples))
    fail_run(name, ", line ", wrong->line, ": the label is ", wrong->written,
             ", but its tokens give ", wrong->computed);
  print(str(name, ": ", examples.size(), " examples of ", task.name, ", all labels right\n"));
  return 0;
}

}  // namespace

std::vector<Command> data_commands() {
  std::string tasks = "Tasks:";
  for (const Task& task : all_tasks()) tasks += " " + task.name;
  const Flag task{"task", "NAME", "which task", "", true};

  Command generate{"data generate", "write a data file of examples drawn at random"};
  generate.flags = {
      task,
      {"count", "N", "how many examples", "", true},
      {"length", "L", "tokens of each; list operations: the largest size (default: the paper's)"},
      {"seed", "S", "other seeds give other examples", std::to_string(paper_seeds()[0])},
      {"split", "NAME", "train or held-out: what a run with this seed would use", "train"},
      {"out", "FILE", "the file to write; it must not exist yet", "", true}};
  generate.more =
      tasks +
      "\nEvery run of list-operations uses the data of seed 1, other tasks that of the "
      "run's seed.\nExample: focus data generate --task parity --count 1000 --length 40 "
      "--seed 1 --out parity.tsv";
  generate.run = generate_command;

  Command verify{"data verify", "recompute every label of a data file from its tokens"};
  verify.flags = {task};
  verify.positionals = {{"FILE", "the data file: Source<TAB>Target, one example a line"}};
  verify.more =
      tasks +
      "\nA wrong label: exit status 1, with the first wrong line (the header is line 1).\n"
      "A file that is not well formed: exit status 2.\n"
      "Example: focus data verify --task parity parity.tsv";
  verify.run = verify_command;
  return {generate, verify};
}

}  // namespace focus
