// List operations: what is the value of nested list operations on digits?
//
//   [MAX 4 3 [MIN 2 3 ] 1 0 ]  ->  4
//
// MIN and MAX; MED is the integer part of the median; SM is the sum mod 10. So every value is a
// digit. As in Long Range Arena the tree is drawn from the root (depth 1) on: at a depth below 10
// an operator with probability 1/4, else a digit; an operator takes 2 … 10 arguments with equal
// probability, all four are equally likely, and so are the ten digits. Trees of the wrong size are
// thrown away and drawn again. The size is the number of tokens: an operator and its ']' are two, a
// digit is one.
//
// `length` L is an upper limit: the size lies strictly between 5L/6 and L (the paper: between 500
// and 600). Below L = 7 there is nothing strictly between, and the size is the largest one possible
// up to L: 1 (a lone digit) for L = 1, 2 and 3, else L itself.
#include <algorithm>
#include <array>

#include "error.h"
#include "tasks/task.h"

namespace focus {

enum : uint8_t { op_min = 10, op_max, op_med, op_sum, closing };  // ids after the ten digits
static constexpr int deepest = 10, fewest_arguments = 2, most_arguments = 10;

// The value of operator `op` on the values, which it may reorder.
static int apply(uint8_t op, std::span<uint8_t> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  switch (op) {
    case op_min:
      return values.front();
    case op_max:
      return values.back();
    case op_med:
      return (values[(n - 1) / 2] + values[n / 2]) / 2;
    default: {  // op_sum
      int sum = 0;
      for (uint8_t value : values) sum += value;
      return sum % 10;
    }
  }
}

// Draws a tree whose root has the given depth and appends its tokens. Returns its value, or -1 as
// soon as there are more tokens than `most` (what is appended is useless then).
static int append_tree(Rng& rng, int depth, size_t most, std::vector<uint8_t>& tokens) {
  if (tokens.size() >= most) return -1;
  if (depth >= deepest || rng.below(4) != 0) {
    tokens.push_back(uint8_t(rng.below(10)));
    return tokens.back();
  }
  const uint8_t op = uint8_t(op_min + rng.below(4));
  const int count = rng.between(fewest_arguments, most_arguments);
  std::array<uint8_t, most_arguments> values;
  tokens.push_back(op);
  for (int i = 0; i < count; ++i) {
    const int value = append_tree(rng, depth + 1, most, tokens);
    if (value < 0) return -1;
    values[size_t(i)] = uint8_t(value);
  }
  tokens.push_back(closing);
  return apply(op, std::span(values).first(size_t(count)));
}

static Example generate(Rng& rng, int length) {
  int smallest = length * 5 / 6 + 1, largest = length - 1;
  if (length < 7) smallest = largest = length <= 3 ? 1 : length;
  Example example;
  do {
    example.tokens.clear();
    example.label = append_tree(rng, 1, size_t(largest), example.tokens);
  } while (example.label < 0 || int(example.tokens.size()) < smallest ||
           int(example.tokens.size()) > largest);
  return example;
}

// Reads from left to right. Values wait on one stack, and for each open operator another one
// remembers where its arguments begin.
static int evaluate(std::span<const uint8_t> tokens) {
  constexpr size_t deepest_read = 100;  // ten times what is ever drawn
  struct Open {
    uint8_t op;
    size_t first_value;
  };
  check_token_ids(tokens, closing + 1);
  std::vector<uint8_t> values;
  std::vector<Open> open;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (open.empty() && i > 0) fail_token(i, "the expression ended before it");
    if (tokens[i] < op_min) {
      values.push_back(tokens[i]);
    } else if (tokens[i] < closing) {
      if (open.size() == deepest_read) fail_token(i, str("nested deeper than ", deepest_read));
      open.push_back({tokens[i], values.size()});
    } else {
      if (open.empty()) fail_token(i, "this ] closes nothing");
      const auto [op, first_value] = open.back();
      if (first_value == values.size())
        fail_token(i, "this ] closes an operator without arguments");
      const int value = apply(op, std::span(values).subspan(first_value));
      open.pop_back();
      values.resize(first_value);
      values.push_back(uint8_t(value));
    }
  }
  if (!open.empty()) fail_input(open.size(), " operator(s) are never closed with ]");
  return values.back();
}

Task list_operations_task() {
  Task task;
  task.name = "list-operations";
  for (char c = '0'; c <= '9'; ++c) task.tokens.push_back(std::string(1, c));
  task.tokens.insert(task.tokens.end(), {"[MIN", "[MAX", "[MED", "[SM", "]"});
  // Long Range Arena's files put round brackets around every pair; models never see them.
  task.spellings = {{"(", -1}, {")", -1}};
  task.classes = 10;
  task.longest_length = 2000;
  task.distinct = true;
  task.defaults = {.length = 600, .blocks = 10, .epochs = 200, .lr = 1.0, .lr_decay = 0.99};
  task.generate = generate;
  task.evaluate = evaluate;
  return task;
}

}  // namespace focus
