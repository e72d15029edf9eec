// What holds for every task (generator and evaluator agree, lengths, determinism), and padding.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "error.h"
#include "tasks/dataset.h"

using namespace focus;
using doctest::Contains;

TEST_CASE("the evaluator confirms the generator at every length from the shortest to 50") {
  for (const Task& task : all_tasks()) {
    CAPTURE(task.name);
    const bool lists = task.name == "list-operations";
    for (int length = task.shortest_length; length <= 50; ++length) {
      CAPTURE(length);
      const int count = lists && length < 4 ? 2 : lists ? 20 : 60;
      for (const Example& example : generate_examples(task, count, length, 10, train_split)) {
        REQUIRE((lists || int(example.tokens.size()) == length));
        REQUIRE(task.evaluate(example.tokens) == example.label);
        REQUIRE((example.label >= 0 && example.label < task.classes));
      }
    }
  }
}

TEST_CASE("the evaluator confirms the generator on many examples and at great length") {
  for (const Task& task : all_tasks()) {
    CAPTURE(task.name);
    const bool lists = task.name == "list-operations";
    for (const Example& example : generate_examples(task, 3000, lists ? 60 : 40, 11, train_split))
      REQUIRE(task.evaluate(example.tokens) == example.label);
    for (const Example& example : generate_examples(task, 2, task.longest_length, 11, train_split))
      REQUIRE(task.evaluate(example.tokens) == example.label);
  }
}

TEST_CASE("an example depends on seed, split and index only") {
  for (const Task& task : all_tasks()) {
    CAPTURE(task.name);
    const auto few = generate_examples(task, 10, 40, 12, train_split);
    const auto many = generate_examples(task, 30, 40, 12, train_split);
    CHECK(std::equal(few.begin(), few.end(), many.begin()));
    CHECK(generate_examples(task, 10, 40, 12, held_out_split) != few);
    CHECK(generate_examples(task, 10, 40, 13, train_split) != few);
    CHECK(many[0] != many[1]);
  }
}

TEST_CASE("one data set for all runs of list operations, one per run elsewhere") {
  CHECK(data_seed(find_task("parity"), 5) == 5);
  CHECK(data_seed(find_task("list-operations"), 5) == data_seed(find_task("list-operations"), 6));
}

TEST_CASE("numbers and lengths of examples out of range are bad input") {
  for (const Task& task : all_tasks()) {
    CAPTURE(task.name);
    for (int count : {0, -1, 2000000000})
      CHECK_THROWS_AS(generate_examples(task, count, 40, 1, 0), InputError);
    for (int length : {task.shortest_length - 1, -1, -2147483647, task.longest_length + 1})
      CHECK_THROWS_WITH_AS(generate_examples(task, 1, length, 1, 0), Contains(task.name.c_str()),
                           InputError);
  }
  CHECK_THROWS_WITH_AS(generate_examples(find_task("parity"), 10000000, 10000, 1, 0),
                       Contains("tokens: ask for fewer"), InputError);
}

TEST_CASE("padding: PAD to a multiple of k, then global tokens with ids of their own") {
  const Task& parity = find_task("parity");
  const std::vector<Example> rows = {{{0, 1, 1, 0, 1}, 1}, {{1, 1}, 0}};
  const PaddedData data = pad_examples(rows, parity, 3, 2, 0);
  CHECK(data.rows == 2);
  CHECK(data.length == 8);
  CHECK(data.vocabulary == 5);
  CHECK(data.labels == std::vector<int>{1, 0});
  CHECK(data.tokens == std::vector<TokenId>{0, 1, 1, 0, 1, 2, 3, 4, 1, 1, 2, 2, 2, 2, 3, 4});
}

TEST_CASE("padding: no rounding without k, and up to the other split's length") {
  const Task& parity = find_task("parity");
  const std::vector<Example> rows = {{{0, 1}, 1}};
  CHECK(pad_examples(rows, parity, 0, 0, 0).length == 2);
  CHECK(pad_examples(rows, parity, -1, 0, 0).length == 2);
  CHECK(pad_examples(rows, parity, 2, 0, 0).length == 2);
  CHECK(pad_examples(rows, parity, 5, 0, 0).length == 5);
  CHECK(pad_examples(rows, parity, 5, 3, 11).length == 18);
  CHECK(pad_examples(rows, parity, -1, 0, 11).tokens.size() == 11);
  CHECK(longest_example(rows) == 2);
  CHECK(longest_example({}) == 0);
}

TEST_CASE("padding refuses what does not fit") {
  const Task& parity = find_task("parity");
  const std::vector<Example> rows = {{{0, 1}, 1}};
  CHECK(pad_examples(rows, parity, -1, 253, 0).tokens.back() == 255);
  CHECK_THROWS_AS(pad_examples(rows, parity, -1, 254, 0), InputError);
  CHECK_THROWS_AS(pad_examples(rows, parity, -1, -1, 0), InputError);
  CHECK_THROWS_AS(pad_examples({}, parity, -1, 0, 0), InputError);
  const std::vector<Example> two(2, rows[0]);
  CHECK_THROWS_WITH_AS(pad_examples(two, parity, 2147483647, 3, 0), Contains("too many"),
                       InputError);
}
