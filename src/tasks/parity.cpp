// Parity: is the number of ones odd?
//
//   0 1 1 0 1  ->  1
//
// Every token is 0 or 1 with equal probability; the label is the number of ones mod 2.
#include "tasks/task.h"

namespace focus {

static Example generate(Rng& rng, int length) {
  Example example;
  for (int i = 0; i < length; ++i) {
    const uint8_t bit = uint8_t(rng.below(2));
    example.tokens.push_back(bit);
    example.label ^= bit;
  }
  return example;
}

static int evaluate(std::span<const uint8_t> tokens) {
  check_token_ids(tokens, 2);
  int ones = 0;
  for (uint8_t token : tokens) ones += token;
  return ones % 2;
}

Task parity_task() {
  Task task;
  task.name = "parity";
  task.tokens = {"0", "1"};
  task.classes = 2;
  task.defaults.epochs = 1000;
  task.generate = generate;
  task.evaluate = evaluate;
  return task;
}

}  // namespace focus
