// The eight sequence tasks of the paper: their tokens, the distribution of their examples, and the
// rule for the label.
//
// Seven come from the Chomsky-hierarchy benchmark (Delétang et al. 2023, "Neural Networks and the
// Chomsky Hierarchy"), list operations from Long Range Arena (Tay et al. 2021) after ListOps
// (Nangia and Bowman 2018). Each has one short file here with its distribution in words.
//
// A task knows its label twice. `generate` computes it while it draws the example. `evaluate`
// recomputes it from the tokens alone, as a reader of a data file has to. The tests let the two
// check each other.
//
// In *.cpp.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rng.h"

namespace focus {

// One row: token ids (no padding) and the class to predict.
struct Example {
  std::vector<uint8_t> tokens;
  int label = 0;
  bool operator==(const Example&) const = default;
};

// The paper's settings for one task (section on experiments; SGD everywhere).
struct TaskDefaults {
  int train_size = 5000, val_size = 2000;  // examples
  int length = 40;                         // tokens; list operations: the largest size
  int blocks = 5, d_model = 64, d_mlp = 64;
  int epochs = 0;
  double lr = 0.1, lr_decay = 0.9995;
  int batch = 25;
};

// Another way to write a token in a file or on the command line; id -1: read and dropped.
struct Spelling {
  std::string text;
  int id;
};

struct Task {
  std::string name;                 // as on the command line
  std::vector<std::string> tokens;  // the text of each token id; PAD takes the first id after them
  int classes = 0;                  // labels are 0 … classes-1
  int shortest_length = 1;          // tokens, the smallest and
  int longest_length = 10000;       // the largest length that `generate` takes
  // No example twice, neither in a split nor across splits; one data set serves all runs.
  bool distinct = false;
  TaskDefaults defaults;
  std::vector<Spelling> spellings;  // accepted on reading beside `tokens`

  // Draws one example. `length` lies between the two limits above; the example has that many tokens
  // (list operations: see list_operations.cpp).
  Example (*generate)(Rng& rng, int length) = nullptr;

  // The label, from the tokens alone. Throws InputError, which says which token is wrong and why,
  // if they are no string of this task. Safe on any input.
  int (*evaluate)(std::span<const uint8_t> tokens) = nullptr;
};

// All eight, in the order of the paper's appendix as the command line lists them.
std::span<const Task> all_tasks();

// The task of that name, one of the eight or text (tasks/text.h). Throws InputError that lists the names, and the nearest one if it is near.
const Task& find_task(std::string_view name);

// One function in each task's file.
Task parity_task();
Task even_pairs_task();
Task missing_duplicate_task();
Task cycle_navigation_task();
Task stack_manipulation_task();
Task modular_arithmetic_task();
Task solve_equation_task();
Task list_operations_task();

// For evaluators: throws InputError about tokens[index], which is counted from 1 in the message.
[[noreturn]] void fail_token(size_t index, std::string_view what);

// For evaluators: throws InputError unless there is a token and each id is below `ids`.
void check_token_ids(std::span<const uint8_t> tokens, int ids);

}  // namespace focus
