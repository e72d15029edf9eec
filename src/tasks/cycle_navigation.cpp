// Cycle navigation: where on a cycle of five places does a walk end?
//
//   2 2 1 0 2  ->  2     (+1 +1 stay -1 +1)
//
// Tokens 0, 1 and 2 (one step back, stay, one step forward) have equal probability; the walk starts
// at place 0.
#include "tasks/task.h"

namespace focus {

static Example generate(Rng& rng, int length) {
  Example example;
  int place = 0;
  for (int i = 0; i < length; ++i) {
    const int step = rng.between(-1, 1);
    place = (place + step + 5) % 5;
    example.tokens.push_back(uint8_t(step + 1));
  }
  example.label = place;
  return example;
}

static int evaluate(std::span<const uint8_t> tokens) {
  check_token_ids(tokens, 3);
  int64_t sum = 0;
  for (uint8_t token : tokens) sum += int64_t{token} - 1;
  return int((sum % 5 + 5) % 5);
}

Task cycle_navigation_task() {
  Task task;
  task.name = "cycle-navigation";
  task.tokens = {"0", "1", "2"};
  task.classes = 5;
  task.defaults.epochs = 750;
  task.generate = generate;
  task.evaluate = evaluate;
  return task;
}

}  // namespace focus
