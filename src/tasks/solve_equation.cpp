// Solve equation: which digit does x stand for?
//
//   ( x - ( 2 + 4 ) ) = 3  ->  4     (4 - 6 = -2, which is 3 mod 5)
//
// An expression of length-2 tokens (expression.h, with + and - only), one of its digits replaced by
// x, then '=' and its value mod 5. The digit is found from a uniform position by walking right to
// the first digit, and from the end on to the start. x occurs once and never in a product, so the
// value moves with x one by one and exactly one digit solves the equation.
#include "error.h"
#include "tasks/expression.h"
#include "tasks/task.h"

namespace focus {

static constexpr std::string_view symbols = "01234+-()x=";  // token id = position

static bool is_digit(char c) {
  return c >= '0' && c <= '4';
}

static Example generate(Rng& rng, int length) {
  Example example;
  std::string text;
  const int value = append_expression(rng, length - 2, "+-", text);
  size_t place = rng.below(uint32_t(text.size()));
  while (!is_digit(text[place])) place = (place + 1) % text.size();
  example.label = text[place] - '0';
  text[place] = 'x';
  text += '=';
  text += char('0' + value);
  for (char c : text) example.tokens.push_back(uint8_t(symbols.find(c)));
  return example;
}

// Tries all five digits.
static int evaluate(std::span<const uint8_t> tokens) {
  check_token_ids(tokens, int(symbols.size()));
  std::string text;
  for (uint8_t token : tokens) text += symbols[token];
  if (text.size() < 3 || text[text.size() - 2] != '=' || !is_digit(text.back())) {
    fail_input("an equation must end in '=' and a digit from 0 to 4");
  }
  const int value = text.back() - '0';
  text.resize(text.size() - 2);
  const size_t place = text.find('x');
  if (place == std::string::npos) fail_input("there is no x left of the '='");
  int solution = -1;
  for (char digit = '0'; digit <= '4'; ++digit) {
    text[place] = digit;
    if (expression_value(text) == value) solution = digit - '0';
  }
  return solution;
}

Task solve_equation_task() {
  Task task;
  task.name = "solve-equation";
  for (char c : symbols) task.tokens.push_back(std::string(1, c));
  task.spellings = {{"5", 5}, {"6", 6}, {"7", 7}, {"8", 8}, {"9", 9}, {"10", 10}, {"−", 6}};
  task.classes = 5;
  task.shortest_length = 3;
  task.defaults.epochs = 600;
  task.generate = generate;
  task.evaluate = evaluate;
  return task;
}

}  // namespace focus
