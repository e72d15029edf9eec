#include "tasks/task.h"

#include <algorithm>
#include <numeric>

#include "error.h"

namespace focus {

std::span<const Task> all_tasks() {
  static const std::vector<Task> tasks = {
      parity_task(),           even_pairs_task(),         missing_duplicate_task(),
      cycle_navigation_task(), stack_manipulation_task(), modular_arithmetic_task(),
      solve_equation_task(),   list_operations_task()};
  return tasks;
}

// How many single-character insertions, deletions and replacements turn one name into the other
// (Levenshtein's distance, row by row).
static size_t edits_between(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row[b.size()];
}

const Task& find_task(std::string_view name) {
  const Task* nearest = nullptr;
  size_t fewest_edits = 4;  // up to three typing errors still count as near
  std::string known;
  for (const Task& task : all_tasks()) {
    if (task.name == name) return task;
    known += " " + task.name;
    const size_t edits = name.size() < 40 ? edits_between(name, task.name) : fewest_edits;
    if (edits < fewest_edits) {
      fewest_edits = edits;
      nearest = &task;
    }
  }
  const std::string shown(name.substr(0, 40));
  if (nearest) {
    fail_input("unknown task '", shown, "': did you mean ", nearest->name, "? Known are", known);
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
