// Even pairs: is the number of unequal neighbours (01 or 10) odd?
//
//   0 1 1 0 1  ->  1     (01, 10 and 01: three)
//
// Every token is 0 or 1 with equal probability. Each unequal pair flips the bit, so the label is
// also 1 exactly when the first and the last token differ: all the model has to find are two
// tokens.
#include "tasks/task.h"

namespace focus {

static Example generate(Rng& rng, int length) {
  Example example;
  for (int i = 0; i < length; ++i) example.tokens.push_back(uint8_t(rng.below(2)));
  example.label = example.tokens.front() != example.tokens.back();
  return example;
}

static int evaluate(std::span<const uint8_t> tokens) {
  check_token_ids(tokens, 2);
  int unequal = 0;
  for (size_t i = 1; i < tokens.size(); ++i) unequal += tokens[i - 1] != tokens[i];
  return unequal % 2;
}

Task even_pairs_task() {
  Task task;
  task.name = "even-pairs";
  task.tokens = {"0", "1"};
  task.classes = 2;
  task.shortest_length = 2;
  task.defaults.epochs = 100;
  // The paper's text says 0.99 for the decay, its released script 0.9995; we follow the script.
  task.defaults.lr_decay = 0.9995;
  task.generate = generate;
  task.evaluate = evaluate;
  return task;
}

}  // namespace focus
