// Modular arithmetic with brackets: what is the value of an expression mod 5?
//
//   ( ( 1 + - 2 ) * 4 )  ->  1     ((1 - 2) * 4 = -4, which is 1 mod 5)
//
// The expression has exactly the wanted length; expression.h has its distribution, with operators
// +, - and * equally likely. 0 is the most frequent value (about 29 %), since a product with 0 is
// 0.
#include "tasks/expression.h"
#include "tasks/task.h"

namespace focus {

static constexpr std::string_view symbols = "01234+-*()";  // token id = position

static Example generate(Rng& rng, int length) {
  Example example;
  std::string text;
  example.label = append_expression(rng, length, "+-*", text);
  for (char c : text) example.tokens.push_back(uint8_t(symbols.find(c)));
  return example;
}

static int evaluate(std::span<const uint8_t> tokens) {
  check_token_ids(tokens, int(symbols.size()));
  std::string text;
  for (uint8_t token : tokens) text += symbols[token];
  return expression_value(text);
}

Task modular_arithmetic_task() {
  Task task;
  task.name = "modular-arithmetic";
  for (char c : symbols) task.tokens.push_back(std::string(1, c));
  task.spellings = {{"5", 5}, {"6", 6}, {"7", 7}, {"8", 8}, {"9", 9}, {"−", 6}, {"×", 7}};
  task.classes = 5;
  task.defaults.epochs = 600;
  task.generate = generate;
  task.evaluate = evaluate;
  return task;
}

}  // namespace focus
