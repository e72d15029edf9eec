// Modular arithmetic and solve equation: values by hand, malformed strings, and the distribution
// against token counts measured on the paper's released data (mean count in a row of 40 tokens).
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "error.h"
#include "files/data_file.h"
#include "tasks/dataset.h"
#include "tasks/expression.h"

using namespace focus;
using doctest::Contains;

static int label_of(const char* task_name, const std::string& text) {
  const Task& task = find_task(task_name);
  return task.evaluate(parse_tokens(task, text));
}

TEST_CASE("values of expressions worked out by hand") {
  CHECK(expression_value("3") == 3);
  CHECK(expression_value("-3") == 2);
  CHECK(expression_value("-0") == 0);
  CHECK(expression_value("(4)") == 4);
  CHECK(expression_value("(-4)") == 1);
  CHECK(expression_value("(1--2)") == 3);
  CHECK(expression_value("(1-2)") == 4);
  CHECK(expression_value("(-3*-4)") == 2);
  CHECK(expression_value("((1+-2)*4)") == 1);
  CHECK(expression_value("((4-(3+3))-(2*(0-1)))") == 0);
  CHECK(label_of("modular-arithmetic", "( ( 1 + - 2 ) * 4 )") == 1);
  CHECK(label_of("modular-arithmetic", "8 8 1 5 6 2 9 7 4 9") == 1);  // the same as numbers
  CHECK(label_of("modular-arithmetic", "( 3 × − 2 )") == 4);
  CHECK(label_of("solve-equation", "x = 3") == 3);
  CHECK(label_of("solve-equation", "- x = 3") == 2);
  CHECK(label_of("solve-equation", "( x - ( 2 + 4 ) ) = 3") == 4);
  CHECK(label_of("solve-equation", "7 1 6 9 8 10 3") == 3);  // (1-x)=3
}

TEST_CASE("malformed expressions are refused with the token's place") {
  for (const char* bad : {"",      "12",       "1+2",      "(1+2", "1)",     "(1+2))", "()",
                          "(1+)",  "(+1)",     "(1+2+3)",  "+",    "-",      "--1",    "-(1+2)",
                          "(1 2)", "(1+2)(3)", "((1+2)3)", "5",    "(1*/2)", "1-",     ")1("}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(expression_value(bad), InputError);
  }
  CHECK_THROWS_WITH_AS(expression_value("(1+2+3)"), Contains("token 5: a bracket"), InputError);
  CHECK_THROWS_WITH_AS(expression_value("((1+2)"), Contains("1 bracket(s) are never"), InputError);
  for (const char* bad : {"= 3", "x", "x =", "x = x", "( x + 1 ) = - 1", "( x + x ) = 1", "1 = 1",
                          "x = 1 = 1", "( x + 1 ) = 1 1", "( x + 1 = 1"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(label_of("solve-equation", bad), InputError);
  }
  CHECK_THROWS_AS(label_of("solve-equation", "( x * 2 ) = 1"), InputError);  // has no such token
}

TEST_CASE("deep nesting costs no stack") {
  const size_t deep = 1000000;
  CHECK(expression_value(str(std::string(deep, '('), "2", std::string(deep, ')'))) == 2);
  CHECK_THROWS_AS(expression_value(std::string(deep, '(')), InputError);
}

TEST_CASE("short expressions take the four forms of the benchmark") {
  for (uint32_t i = 0; i < 50; ++i) {
    Rng rng(1, Stream::data, 0, i);
    std::string one, two, three, four;
    append_expression(rng, 1, "+", one);
    append_expression(rng, 2, "+", two);
    append_expression(rng, 3, "+", three);
    append_expression(rng, 4, "+", four);
    CHECK(one.size() == 1);
    CHECK((two.size() == 2 && two[0] == '-'));
    CHECK((three.size() == 3 && three[0] == '(' && three[1] != '-' && three[2] == ')'));
    CHECK((four.size() == 4 && four[0] == '(' && four[1] == '-' && four[3] == ')'));
  }
}

TEST_CASE("the left part's length is uniform in 1 ... n-4, and operators are equally likely") {
  // At length 6 the left part has one or two characters: (d+-d) or (-d+d).
  const int draws = 6000;
  int left_one = 0, times = 0;
  for (int i = 0; i < draws; ++i) {
    Rng rng(2, Stream::data, 0, uint32_t(i));
    std::string text;
    append_expression(rng, 6, "+-*", text);
    const bool one = text[1] != '-';
    left_one += one;
    times += text[one ? 2 : 3] == '*';
  }
  CHECK(std::abs(left_one - draws / 2) < 5 * 39);  // sqrt(6000 / 4) = 39
  CHECK(std::abs(times - draws / 3) < 5 * 37);     // sqrt(6000 * 2 / 9) = 37
}

// Checks a token's mean count per row against the released data's, `half_unit` being half a unit of
// the last digit given. Both are means over some 5000 rows, so the difference has √2 times the
// standard error of one; five of those.
static void check_mean_count(const std::vector<Example>& rows, uint8_t token, double expected,
                             double half_unit) {
  double sum = 0, squares = 0;
  for (const Example& row : rows) {
    double count = 0;
    for (uint8_t t : row.tokens) count += t == token;
    sum += count;
    squares += count * count;
  }
  const double n = double(rows.size()), mean = sum / n;
  const double error = std::sqrt((squares / n - mean * mean) / n);
  CAPTURE(int(token));
  CAPTURE(mean);
  CHECK(std::abs(mean - expected) <= half_unit + 5 * std::sqrt(2.0) * error);
}

TEST_CASE("modular arithmetic has the released data's token counts and majority class") {
  const auto rows = generate_examples(find_task("modular-arithmetic"), 5000, 40, 6, 0);
  for (uint8_t digit = 0; digit < 5; ++digit) check_mean_count(rows, digit, 1.73, 0.005);
  check_mean_count(rows, 5, 2.55, 0.005);
  check_mean_count(rows, 6, 5.8, 0.05);
  check_mean_count(rows, 7, 2.55, 0.005);
  check_mean_count(rows, 8, 10.2, 0.05);
  check_mean_count(rows, 9, 10.2, 0.05);
  int zeros = 0;
  for (const Example& row : rows) zeros += row.label == 0;
  CHECK(std::abs(zeros / 5000.0 - 0.29) < 0.005 + 5 * 0.0064);  // sqrt(0.29 * 0.71 / 5000)
}

TEST_CASE("solve equation has the released data's token counts, one x, and balanced classes") {
  const auto rows = generate_examples(find_task("solve-equation"), 5000, 40, 7, 0);
  for (uint8_t digit = 0; digit < 5; ++digit) check_mean_count(rows, digit, 1.65, 0.005);
  check_mean_count(rows, 5, 3.6, 0.05);
  check_mean_count(rows, 6, 6.8, 0.05);
  check_mean_count(rows, 7, 9.7, 0.05);
  check_mean_count(rows, 8, 9.7, 0.05);
  std::vector<int> labels(5);
  for (const Example& row : rows) {
    ++labels[size_t(row.label)];
    CHECK(std::count(row.tokens.begin(), row.tokens.end(), 9) == 1);
    CHECK(row.tokens[38] == 10);
  }
  for (int count : labels) CHECK(std::abs(count - 1000) < 5 * 28.3);  // sqrt(5000 * 0.16)
}

TEST_CASE("exactly one digit solves an equation, and x is put where the walk from anywhere ends") {
  int first_place = 0, rows_of_five = 0;
  for (const Example& row : generate_examples(find_task("solve-equation"), 3000, 7, 8, 0)) {
    std::string text;
    for (size_t i = 0; i < 5; ++i) text += "01234+-()x="[row.tokens[i]];
    const size_t place = text.find('x');
    int solutions = 0;
    for (char digit = '0'; digit <= '4'; ++digit) {
      text[place] = digit;
      solutions += expression_value(text) == row.tokens[6];
    }
    CHECK(solutions == 1);
    ++rows_of_five;
    first_place += place == 1;  // (d+d): from places 4, 0, 1 the walk ends at 1, from 2, 3 at 3
  }
  CHECK(std::abs(first_place - rows_of_five * 3 / 5) < 5 * 26.8);  // sqrt(3000 * 0.24)
}
