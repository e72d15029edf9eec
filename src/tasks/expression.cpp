#include "tasks/expression.h"

#include <vector>

#include "error.h"
#include "tasks/task.h"

namespace focus {

static int apply(char operation, int left, int right) {
  switch (operation) {
    case '+':
      return (left + right) % 5;
    case '-':
      return (left - right + 5) % 5;
    default:
      return left * right % 5;
  }
}

int append_expression(Rng& rng, int length, std::string_view operators, std::string& text) {
  if (length <= 4) {
    const bool bracketed = length >= 3, negative = length % 2 == 0;
    const int digit = int(rng.below(5));
    if (bracketed) text += '(';
    if (negative) text += '-';
    text += char('0' + digit);
    if (bracketed) text += ')';
    return negative ? (5 - digit) % 5 : digit;
  }
  const int left_length = rng.between(1, length - 4);
  text += '(';
  const int left = append_expression(rng, left_length, operators, text);
  const char operation = operators[rng.below(uint32_t(operators.size()))];
  text += operation;
  const int right = append_expression(rng, length - left_length - 3, operators, text);
  text += ')';
  return apply(operation, left, right);
}

// Reads from left to right and keeps one Group for every bracket that is still open, so that deep
// nesting costs memory, not stack.
int expression_value(std::string_view text) {
  struct Group {
    int left = -1;        // value of the first operand, once it is complete
    char operation = 0;   // once it is read
    bool closed = false;  // once the second operand is read, too
  };
  std::vector<Group> open = {Group{}};  // the outermost one stands for the whole text

  // Puts a complete operand into the innermost open group.
  const auto take = [&](size_t i, int value) {
    Group& group = open.back();
    if (group.left < 0) {
      group.left = value;
    } else if (group.operation && !group.closed) {
      group.left = apply(group.operation, group.left, value);
      group.closed = true;
    } else {
      fail_token(i, "an operator should stand before it");
    }
  };

  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    Group& group = open.back();
    const bool operand_wanted = group.left < 0 || (group.operation && !group.closed);
    if (c >= '0' && c <= '4') {
      take(i, c - '0');
    } else if (c == '(') {
      if (!operand_wanted) fail_token(i, "an operator should stand before this bracket");
      open.push_back(Group{});
    } else if (c == ')') {
      if (open.size() == 1) fail_token(i, "this bracket was never opened");
      if (operand_wanted) fail_token(i, "an operand is missing before this bracket");
      const int value = group.left;
      open.pop_back();
      take(i, value);
    } else if (c == '-' && operand_wanted) {
      const char next = i + 1 < text.size() ? text[i + 1] : ')';
      if (next < '0' || next > '4') fail_token(i, "a minus sign must stand before a digit");
      take(++i, (5 - (next - '0')) % 5);
    } else if (c == '+' || c == '-' || c == '*') {
      if (operand_wanted) fail_token(i, "an operand is missing before this operator");
      if (open.size() == 1) fail_token(i, "an operator must stand inside brackets");
      if (group.closed) fail_token(i, "a bracket holds only one operator");
      group.operation = c;
    } else {
      fail_token(i, str("'", c, "' cannot stand in an expression"));
    }
  }
  if (open.size() > 1) fail_input(open.size() - 1, " bracket(s) are never closed");
  if (open.back().left < 0) fail_input("the expression is empty");
  return open.back().left;
}

}  // namespace focus
