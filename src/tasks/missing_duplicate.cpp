// Missing duplicate: a string stands there twice, one symbol is hidden. Which symbol is it?
//
//   0 1 1 0 2 1  ->  1     (0 1 1 twice; 2 marks the hole)
//
// The string w has ⌊length/2⌋ symbols, each 0 or 1 with equal probability; the hole is uniform over
// the positions of w w. An odd length gets an empty token 3 at the end.
#include "error.h"
#include "tasks/task.h"

namespace focus {

static constexpr uint8_t hole = 2, empty = 3;

static Example generate(Rng& rng, int length) {
  const int half = length / 2;
  Example example;
  for (int i = 0; i < half; ++i) example.tokens.push_back(uint8_t(rng.below(2)));
  for (int i = 0; i < half; ++i) example.tokens.push_back(example.tokens[size_t(i)]);
  uint8_t& hidden = example.tokens[rng.below(uint32_t(2 * half))];
  example.label = hidden;
  hidden = hole;
  if (length % 2 == 1) example.tokens.push_back(empty);
  return example;
}

static int evaluate(std::span<const uint8_t> tokens) {
  check_token_ids(tokens, 4);
  if (tokens.size() % 2 == 1) {
    if (tokens.back() != empty) fail_token(tokens.size() - 1, "an odd length must end in 3");
    tokens = tokens.first(tokens.size() - 1);
  }
  const size_t half = tokens.size() / 2;
  int hidden = -1;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const uint8_t token = tokens[i], twin = tokens[i < half ? i + half : i - half];
    if (token == empty) fail_token(i, "the empty token 3 may only end an odd length");
    if (token != hole) {
      if (twin < hole && twin != token) fail_token(i, "the two halves differ here");
      continue;
    }
    if (hidden >= 0) fail_token(i, "there is a second hole (2)");
    if (twin >= hole) fail_token(i, "its copy in the other half is no symbol either");
    hidden = twin;
  }
  if (hidden < 0) fail_input("there is no hole (2)");
  return hidden;
}

Task missing_duplicate_task() {
  Task task;
  task.name = "missing-duplicate";
  task.tokens = {"0", "1", "2", "3"};
  task.classes = 2;
  task.shortest_length = 2;
  task.defaults.epochs = 250;
  task.generate = generate;
  task.evaluate = evaluate;
  return task;
}

}  // namespace focus
