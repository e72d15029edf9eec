// List operations: values by hand, malformed strings, sizes, distribution, distinct trees.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "error.h"
#include "files/data_file.h"
#include "tasks/dataset.h"

using namespace focus;
using doctest::Contains;

static const Task& lists() {
  return find_task("list-operations");
}

static int value_of(const std::string& text) {
  return lists().evaluate(parse_tokens(lists(), text));
}

TEST_CASE("values of list operations worked out by hand") {
  CHECK(value_of("7") == 7);
  CHECK(value_of("[MIN 4 3 9 ]") == 3);
  CHECK(value_of("[MAX 4 3 9 ]") == 9);
  CHECK(value_of("[SM 4 3 9 ]") == 6);
  CHECK(value_of("[SM 5 5 ]") == 0);
  CHECK(value_of("[MED 9 0 4 ]") == 4);
  CHECK(value_of("[MED 9 0 4 5 ]") == 4);  // (4 + 5) / 2, integer part
  CHECK(value_of("[MED 1 8 ]") == 4);
  CHECK(value_of("[MAX 4 3 [MIN 2 3 ] 1 0 ]") == 4);
  CHECK(value_of("[SM [MAX 2 9 ] [MED [MIN 8 7 ] 1 [SM 6 6 6 ] ] 8 ]") == 4);
  CHECK(value_of("( ( ( [MAX 2 ) 9 ) ] )") == 9);  // as Long Range Arena writes it
}

TEST_CASE("malformed list operations are refused") {
  for (const char* bad : {"", "]", "1 2", "[MAX ]", "[MAX 1", "[MAX 1 2 ] ]", "[MAX 1 2 ] 3",
                          "[MAX [MIN 1 2 ]", "1 ]", "[MAX", "( )"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(value_of(bad), InputError);
  }
  CHECK_THROWS_WITH_AS(value_of("[MAX 1 2 ] 3"), Contains("token 5: the expression"), InputError);
  CHECK_THROWS_WITH_AS(value_of("[MAX [SM ] 1 ]"), Contains("token 3"), InputError);
  CHECK_THROWS_WITH_AS(parse_tokens(lists(), "[MAX 1 10 ]"), Contains("'10'"), InputError);
}

TEST_CASE("ten thousand levels are refused, a hundred are read") {
  const auto nested = [](int levels) {
    std::string text;
    for (int i = 0; i < levels; ++i) text += "[MAX 1 ";
    text += "5";
    for (int i = 0; i < levels; ++i) text += " ]";
    return text;
  };
  CHECK(value_of(nested(100)) == 5);
  CHECK_THROWS_WITH_AS(value_of(nested(101)), Contains("nested deeper than 100"), InputError);
  CHECK_THROWS_WITH_AS(value_of(nested(10000)), Contains("nested deeper than 100"), InputError);
}

TEST_CASE("the size lies strictly between 5/6 of the length and the length") {
  for (int length : {600, 601, 100, 60, 41, 31, 30, 13, 12, 9, 8, 7}) {
    CAPTURE(length);
    for (const Example& example : generate_examples(lists(), 20, length, 1, train_split)) {
      const int size = int(example.tokens.size());
      CHECK((6 * size > 5 * length && size < length));
    }
  }
  for (int length = 1; length < 7; ++length) {  // nothing lies strictly between
    CAPTURE(length);
    for (const Example& example : generate_examples(lists(), 3, length, 1, train_split))
      CHECK(int(example.tokens.size()) == (length < 4 ? 1 : length));
  }
}

TEST_CASE("both ends of the size range 501 ... 599 occur") {
  int smallest = 1000, largest = 0;
  for (const Example& example : generate_examples(lists(), 600, 600, 2, train_split)) {
    smallest = std::min(smallest, int(example.tokens.size()));
    largest = std::max(largest, int(example.tokens.size()));
  }
  // Missing the ten outermost of 99 nearly equally likely sizes 600 times has probability e^-60.
  CHECK((smallest >= 501 && smallest <= 510));
  CHECK((largest <= 599 && largest >= 590));
}

// What the tokens of one example say about the tree.
struct TreeCounts {
  int inner = 0, operators_inner = 0;  // arguments at depth 2 … 9, and how many are operators
  int deepest = 0, fewest = 100, most = 0;
};

static void count_tree(const Example& example, TreeCounts& counts) {
  std::vector<int> arguments;  // of each open operator
  for (uint8_t token : example.tokens) {
    if (token == 14) {
      counts.fewest = std::min(counts.fewest, arguments.back());
      counts.most = std::max(counts.most, arguments.back());
      arguments.pop_back();
      continue;
    }
    const int depth = int(arguments.size()) + 1;
    counts.deepest = std::max(counts.deepest, depth);
    if (!arguments.empty()) ++arguments.back();
    if (depth >= 2 && depth <= 9) {
      ++counts.inner;
      counts.operators_inner += token >= 10;
    }
    if (token >= 10) arguments.push_back(0);
  }
}

TEST_CASE("trees: depth at most 10, 2 to 10 arguments, an operator with probability 1/4") {
  const auto examples = generate_examples(lists(), 300, 600, 3, train_split);
  TreeCounts counts;
  std::vector<double> tokens(15);
  for (const Example& example : examples) {
    count_tree(example, counts);
    for (uint8_t token : example.tokens) ++tokens[token];
  }
  CHECK(counts.deepest == 10);
  CHECK(counts.fewest == 2);
  CHECK(counts.most == 10);
  // Accepting sizes near 550 favours no value of the operator or digit, and the operator's share
  // only a little: a tree of that size is an ordinary one that has survived.
  const double share = double(counts.operators_inner) / counts.inner;
  CAPTURE(share);
  CHECK(std::abs(share - 0.25) < 0.02);
  const double operators = tokens[10] + tokens[11] + tokens[12] + tokens[13];
  double digits = 0;
  for (size_t d = 0; d < 10; ++d) digits += tokens[d];
  for (size_t op = 10; op < 14; ++op)
    CHECK(std::abs(tokens[op] - operators / 4) < 5 * std::sqrt(operators * 3 / 16));
  for (size_t d = 0; d < 10; ++d)
    CHECK(std::abs(tokens[d] - digits / 10) < 5 * std::sqrt(digits * 0.09));
}

TEST_CASE("the share of nested trees of size 7 is the exact one") {
  // Size 7 at length 8 is an operator on five digits, or on a digit and an operator on two digits,
  // in either order. With an operator's probability 1/4 and nine argument counts:
  //   flat   1/4 1/9 (3/4)^5          nested   1/4 1/9 2 (3/4)^3 1/4 1/9      nested/flat = 8/81
  const int draws = 8000;
  int nested = 0;
  for (int i = 0; i < draws; ++i) {
    Rng rng(9, Stream::data, 0, uint32_t(i));
    const Example example = lists().generate(rng, 8);
    REQUIRE(example.tokens.size() == 7);
    nested += std::count(example.tokens.begin(), example.tokens.end(), 14) == 2;
  }
  CHECK(std::abs(nested - draws * 8 / 89.0) < 5 * 25.6);  // sqrt(8000 * 8 * 81) / 89
}

TEST_CASE("trees are distinct within and across splits, also when there are few") {
  for (int length : {4, 5, 30}) {
    CAPTURE(length);
    const int count = length == 4 ? 150 : 500;  // of 400 trees at length 4, half for each split
    std::set<std::string> seen;
    for (uint32_t split : {train_split, held_out_split})
      for (const Example& example : generate_examples(lists(), count, length, 4, split))
        seen.emplace(example.tokens.begin(), example.tokens.end());
    CHECK(int(seen.size()) == 2 * count);
  }
}

TEST_CASE("more distinct trees than there are is bad input, not an endless search") {
  CHECK_THROWS_WITH_AS(generate_examples(lists(), 20, 1, 1, train_split),
                       Contains("distinct examples of list-operations of length 1"), InputError);
  CHECK_THROWS_AS(generate_examples(lists(), 401, 4, 1, train_split), InputError);
  CHECK_THROWS_AS(generate_examples(lists(), 1, 30, 1, 2), InputError);
}
