// The five tasks whose examples are plain strings, and the list of tasks itself.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <string>

#include "error.h"
#include "files/data_file.h"
#include "tasks/dataset.h"

using namespace focus;
using doctest::Contains;

static int label_of(const char* task_name, const char* text) {
  const Task& task = find_task(task_name);
  return task.evaluate(parse_tokens(task, text));
}

// Whether `hits` of `draws` fits the probability: within five standard deviations.
static bool fits(int hits, int draws, double probability) {
  const double sd = std::sqrt(draws * probability * (1 - probability));
  return std::abs(hits - draws * probability) <= 5 * sd;
}

TEST_CASE("there are eight tasks, found by name, with a hint for a typing error") {
  CHECK(all_tasks().size() == 8);
  for (const Task& task : all_tasks()) CHECK(&find_task(task.name) == &task);
  CHECK_THROWS_WITH_AS(find_task("even_pairs"), Contains("did you mean even-pairs?"), InputError);
  CHECK_THROWS_WITH_AS(find_task("chess"), Contains("known are parity even-pairs"), InputError);
  CHECK_THROWS_AS(find_task(""), InputError);
  CHECK_THROWS_AS(find_task(std::string(100000, 'x')), InputError);
}

TEST_CASE("settings are the paper's") {
  const std::map<std::string, int> epochs = {
      {"list-operations", 200}, {"even-pairs", 100},         {"missing-duplicate", 250},
      {"parity", 1000},         {"stack-manipulation", 200}, {"modular-arithmetic", 600},
      {"solve-equation", 600},  {"cycle-navigation", 750}};
  for (const Task& task : all_tasks()) {
    CAPTURE(task.name);
    const TaskDefaults& d = task.defaults;
    const bool lists = task.name == "list-operations";
    CHECK(d.epochs == epochs.at(task.name));
    CHECK(d.train_size == 5000);
    CHECK(d.val_size == 2000);
    CHECK(d.length == (lists ? 600 : 40));
    CHECK(d.blocks == (lists ? 10 : 5));
    CHECK(d.d_model == 64);
    CHECK(d.d_mlp == 64);
    CHECK(d.lr == (lists ? 1.0 : 0.1));
    CHECK(d.lr_decay == (lists ? 0.99 : 0.9995));
    const bool two = task.name == "even-pairs" || task.name == "missing-duplicate";
    CHECK(task.shortest_length == (two ? 2 : task.name == "solve-equation" ? 3 : 1));
  }
}

TEST_CASE("labels of the string tasks worked out by hand") {
  CHECK(label_of("parity", "1") == 1);
  CHECK(label_of("parity", "0 1 1 0 1") == 1);
  CHECK(label_of("parity", "1 0 1 1 1") == 0);
  CHECK(label_of("even-pairs", "0 1") == 1);
  CHECK(label_of("even-pairs", "0 1 1 0 1") == 1);
  CHECK(label_of("even-pairs", "1 0 0 0 1") == 0);
  CHECK(label_of("missing-duplicate", "0 1 1 0 2 1") == 1);
  CHECK(label_of("missing-duplicate", "2 1 1 0 1 1") == 0);
  CHECK(label_of("missing-duplicate", "1 2 3") == 1);
  CHECK(label_of("cycle-navigation", "2 2 1 0 2") == 2);
  CHECK(label_of("cycle-navigation", "0 0") == 3);
  CHECK(label_of("cycle-navigation", "0 0 0 0 0 0") == 4);
  CHECK(label_of("stack-manipulation", "1") == 1);
  CHECK(label_of("stack-manipulation", "0 1 2") == 0);
  CHECK(label_of("stack-manipulation", "0 1 2 2") == 2);
  CHECK(label_of("stack-manipulation", "0 1 2 2 2 4") == 1);  // a pop too many
  CHECK(label_of("stack-manipulation", "0 1 2 2 4 3 2") == 1);
  CHECK(label_of("stack-manipulation", "1 2 2 4 2 3 4 2") == 0);
}

TEST_CASE("strings that no string task has are refused with the token's place") {
  CHECK_THROWS_WITH_AS(label_of("missing-duplicate", "0 1 2 0 2 1"),
                       Contains("token 5: there is a"), InputError);
  CHECK_THROWS_WITH_AS(label_of("missing-duplicate", "0 1 0 1"), Contains("no hole"), InputError);
  CHECK_THROWS_WITH_AS(label_of("missing-duplicate", "0 1 1 2 1 0"), Contains("token 3: the two"),
                       InputError);
  CHECK_THROWS_AS(label_of("missing-duplicate", "2 2"), InputError);
  CHECK_THROWS_AS(label_of("missing-duplicate", "2 3"), InputError);
  CHECK_THROWS_AS(label_of("missing-duplicate", "3"), InputError);
  CHECK_THROWS_AS(label_of("missing-duplicate", "0 1 2"), InputError);
  CHECK_THROWS_AS(label_of("missing-duplicate", "0 3 0 2"), InputError);
  CHECK_THROWS_WITH_AS(label_of("stack-manipulation", "0 2 1"), Contains("token 3"), InputError);
  for (const Task& task : all_tasks()) {
    CAPTURE(task.name);
    CHECK_THROWS_AS(task.evaluate({}), InputError);
    const std::vector<uint8_t> pad = {0, uint8_t(task.tokens.size())}, high = {255};
    CHECK_THROWS_AS(task.evaluate(pad), InputError);
    CHECK_THROWS_AS(task.evaluate(high), InputError);
  }
}

TEST_CASE("symbols and classes of the string tasks are balanced") {
  const int draws = 4000;
  for (const char* name : {"parity", "even-pairs", "missing-duplicate", "cycle-navigation"}) {
    CAPTURE(name);
    const Task& task = find_task(name);
    std::vector<int> labels(5), first(5);
    for (const Example& example : generate_examples(task, draws, 40, 3, train_split)) {
      ++labels[size_t(example.label)];
      ++first[example.tokens[0]];
    }
    const int symbols = std::string(name) == "cycle-navigation" ? 3 : 2;
    const double hidden = std::string(name) == "missing-duplicate" ? 1.0 / 40 : 0;
    for (int c = 0; c < task.classes; ++c)
      CHECK(fits(labels[size_t(c)], draws, 1.0 / task.classes));
    for (int s = 0; s < symbols; ++s) CHECK(fits(first[size_t(s)], draws, (1 - hidden) / symbols));
  }
}

TEST_CASE("the hole of missing duplicate is uniform over both halves") {
  const int draws = 8000, length = 9;
  std::vector<int> places(length);
  for (const Example& e : generate_examples(find_task("missing-duplicate"), draws, length, 4, 0)) {
    CHECK(e.tokens.back() == 3);
    for (size_t i = 0; i < e.tokens.size(); ++i) places[i] += e.tokens[i] == 2;
  }
  for (int i = 0; i < 8; ++i) CHECK(fits(places[size_t(i)], draws, 1.0 / 8));
}

TEST_CASE("stack manipulation: stack length uniform in 1 ... L-1, actions equally likely") {
  const int draws = 8000, length = 11;
  std::vector<int> lengths(length), tokens(5);
  for (const Example& e : generate_examples(find_task("stack-manipulation"), draws, length, 5, 0)) {
    size_t stack = 0;
    while (stack < e.tokens.size() && e.tokens[stack] < 2) ++stack;
    ++lengths.at(stack);  // throws for L: at least one action
    for (uint8_t token : e.tokens) ++tokens[token];
  }
  CHECK(lengths[0] == 0);
  for (size_t n = 1; n < 11; ++n) CHECK(fits(lengths[n], draws, 1.0 / 10));
  const int actions = tokens[2] + tokens[3] + tokens[4];
  for (size_t token = 2; token < 5; ++token) CHECK(fits(tokens[token], actions, 1.0 / 3));
  CHECK(fits(tokens[0], tokens[0] + tokens[1], 0.5));
}
