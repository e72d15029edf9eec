// Stack manipulation: what lies on top of a stack after some actions?
//
//   0 1 2 2 4 3 2  ->  1     (stack 0 1; pop, pop, push 1, push 0, pop)
//
// First the stack from bottom to top (0 or 1 with equal probability), then actions 2 = pop,
// 3 = push 0, 4 = push 1 with equal probability. The stack's length is uniform in 1 … length-1 (a
// length of 1 is a stack without actions). Popping an empty stack does nothing. The label is the
// top symbol, or 2 for an empty stack.
#include <algorithm>

#include "tasks/task.h"

namespace focus {

static constexpr uint8_t pop = 2, push_0 = 3;
static constexpr int empty_stack = 2;

static Example generate(Rng& rng, int length) {
  Example example;
  const int stack_length = rng.between(1, std::max(1, length - 1));
  for (int i = 0; i < stack_length; ++i) example.tokens.push_back(uint8_t(rng.below(2)));
  std::vector<uint8_t> stack = example.tokens;
  for (int i = stack_length; i < length; ++i) {
    const uint8_t action = uint8_t(pop + rng.below(3));
    example.tokens.push_back(action);
    if (action != pop) {
      stack.push_back(uint8_t(action - push_0));
    } else if (!stack.empty()) {
      stack.pop_back();
    }
  }
  example.label = stack.empty() ? empty_stack : stack.back();
  return example;
}

// Reads the tokens once backwards, without a stack: the top is the last symbol put there that no
// later pop takes away. A pop that was ignored cannot mislead this: the stack was empty then, so
// everything before it has been popped already.
static int evaluate(std::span<const uint8_t> tokens) {
  check_token_ids(tokens, 5);
  bool action_seen = false;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= pop) action_seen = true;
    if (tokens[i] < pop && action_seen) fail_token(i, "a stack symbol stands after an action");
  }
  size_t open_pops = 0;
  for (size_t i = tokens.size(); i-- > 0;) {
    if (tokens[i] == pop) {
      ++open_pops;
    } else if (open_pops > 0) {
      --open_pops;
    } else {
      return tokens[i] < pop ? tokens[i] : tokens[i] - push_0;
    }
  }
  return empty_stack;
}

Task stack_manipulation_task() {
  Task task;
  task.name = "stack-manipulation";
  task.tokens = {"0", "1", "2", "3", "4"};
  task.classes = 3;
  task.defaults.epochs = 200;
  task.generate = generate;
  task.evaluate = evaluate;
  return task;
}

}  // namespace focus
