#include "tasks/task.h"

#include "error.h"
#include "suggest.h"
#include "tasks/text.h"

namespace focus {

std::span<const Task> all_tasks() {
  static const std::vector<Task> tasks = {
      parity_task(),           even_pairs_task(),         missing_duplicate_task(),
      cycle_navigation_task(), stack_manipulation_task(), modular_arithmetic_task(),
      solve_equation_task(),   list_operations_task()};
  return tasks;
}

const Task& find_task(std::string_view name) {
  std::vector<std::string> names;
  std::string known;
  for (const Task& task : all_tasks()) {
    if (task.name == name) return task;
    names.push_back(task.name);
    known += " " + task.name;
  }
  if (name == text_task().name) return text_task();
  names.push_back(text_task().name);
  known += " " + text_task().name;
  const std::string shown(name.substr(0, 40)), nearest = nearest_name(name, names);
  if (!nearest.empty()) {
    fail_input("unknown task '", shown, "': did you mean ", nearest, "? Known are", known);
  }
  fail_input("unknown task '", shown, "': known are", known);
}

void fail_token(size_t index, std::string_view what) {
  fail_input("token ", index + 1, ": ", what);
}

void check_token_ids(std::span<const uint8_t> tokens, int ids) {
  if (tokens.empty()) fail_input("there are no tokens");
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= ids) fail_token(i, str("id ", int(tokens[i]), " is not below ", ids));
  }
}

}  // namespace focus
