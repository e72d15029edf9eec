// Data files: round trips, Long Range Arena's form, and every way a file can be wrong.
#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "error.h"
#include "files/atomic_file.h"
#include "files/data_file.h"
#include "tasks/dataset.h"

using namespace focus;
using doctest::Contains;

static std::vector<Example> parse(const char* task, const std::string& bytes) {
  return parse_data(find_task(task), bytes, "F.tsv");
}

// Requires that the file is refused, with the line and a part of the reason.
static void check_refused(const char* task, const std::string& bytes, int line,
                          const char* reason) {
  CAPTURE(bytes.substr(0, 200));
  std::string message;
  try {
    parse(task, bytes);
  } catch (const InputError& error) {
    message = error.what();
  }
  CAPTURE(message);
  CHECK(message.starts_with(str("F.tsv, line ", line, ": ")));
  CHECK(message.find(reason) != message.npos);
  CHECK(message.size() < 400);
  for (char c : message) CHECK((c >= ' ' && c <= '~'));
}

// A file of its own in the system's folder for temporary files.
struct TemporaryFile {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / str("focus-data-", uintptr_t(this), ".tsv");
  ~TemporaryFile() { std::filesystem::remove(path); }
};

TEST_CASE("what is written is read again, for every task") {
  for (const Task& task : all_tasks()) {
    CAPTURE(task.name);
    const auto examples = generate_examples(task, 25, 31, 1, train_split);
    const TemporaryFile file;
    write_data_file(task, file.path, examples);
    CHECK(read_data_file(task, file.path) == examples);
    CHECK(!first_wrong_label(task, examples));
  }
}

TEST_CASE("the written form") {
  const std::vector<Example> rows = {{{8, 1, 6, 4, 9}, 2}, {{3}, 3}};
  CHECK(format_data(find_task("modular-arithmetic"), rows) ==
        "Source\tTarget\n( 1 - 4 )\t2\n3\t3\n");
}

TEST_CASE("CRLF, several blanks and a missing final newline are accepted") {
  const std::vector<Example> rows = {{{0, 1, 1}, 0}, {{1}, 1}};
  CHECK(parse("parity", "Source\tTarget\r\n0 1 1\t0\r\n1\t1\r\n") == rows);
  CHECK(parse("parity", "Source\tTarget\n 0  1   1 \t0\n1\t1") == rows);
  CHECK(parse("parity", "Source\tTarget\r\n0 1 1\t0\n1\t1\r") == rows);
}

TEST_CASE("what spreadsheets and other programs add is accepted") {
  const auto plain = parse("parity", "Source\tTarget\n0 1\t1\n1 1\t0\n");
  for (const char* text :
       {"\xef\xbb\xbfSource\tTarget\r\n0 1\t1\r\n1 1\t0\r\n", "Source\tTarget\n0 1\t1\n1 1\t0\n\n",
        "Source\tTarget\n0 1 \t1 \n1 1\t0  \n", "Source\tTarget\n0 1\t1.0\n1 1\t0.0\n"}) {
    const auto read = parse("parity", text);
    REQUIRE(read.size() == 2);
    for (size_t i = 0; i < 2; ++i) {
      CHECK(read[i].tokens == plain[i].tokens);
      CHECK(read[i].label == plain[i].label);
    }
  }
}

TEST_CASE("a file as Long Range Arena writes it") {
  const auto rows = parse("list-operations",
                          "Source\tTarget\r\n"
                          "( ( ( ( [MED 3 ) ( ( ( [SM 9 ) 4 ) ] ) ) 6 ) ] )\t3\r\n"
                          "( ( ( [MIN 7 ) 2 ) ] )\t2\r\n");
  CHECK(rows.size() == 2);
  CHECK(rows[0].tokens == std::vector<uint8_t>{12, 3, 13, 9, 4, 14, 6, 14});
  CHECK(!first_wrong_label(find_task("list-operations"), rows));
}

TEST_CASE("every kind of malformed file is refused with its line") {
  const std::string head = "Source\tTarget\n";
  check_refused("parity", "", 1, "empty");
  check_refused("parity", "\n", 1, "header");
  check_refused("parity", head, 1, "no examples");
  check_refused("parity", "Source\tTarget", 1, "no examples");
  check_refused("parity", "Source Target\n0 1\t1\n", 1, "'Source Target'");
  check_refused("parity", "0 1\t1\n", 1, "expected the header");
  check_refused("parity",
                std::string("\x7f"
                            "ELF\x02\x01\x00\x00\n\n",
                            10),
                1, "'\\x7fELF\\x02");
  check_refused("parity", head + "0 1\t1\n0 1 1\n", 3, "two columns");
  check_refused("parity", head + "0 1\t1\t1\n", 2, "two columns");
  check_refused("parity", head + "0 1\t1\n\n0 1\t1\n", 3, "two columns");
  check_refused("parity", head + "\t1\n", 2, "no token");
  check_refused("parity", head + "   \t1\n", 2, "no token");
  check_refused("parity", head + "0 1\t1\n0 2 1\t1\n", 3, "unknown token '2'");
  check_refused("parity", head + "01\t1\n", 2, "unknown token '01'");
  check_refused("parity", head + "0\r1\t1\n", 2, "'0\\x0d1'");
  check_refused("parity", head + "0 \xff\xc3\t1\n", 2, "'\\xff\\xc3'");
  check_refused("parity", head + std::string("0 \0\t1\n", 6), 2, "NUL");
  check_refused("parity", head + std::string(100000, 'x') + "\t1\n", 2, "xxx...'");
  check_refused("parity", head + "0 1\t2\n", 2, "out of range: parity has labels 0 to 1");
  check_refused("parity", head + "0 1\t-1\n", 2, "out of range");
  check_refused("parity", head + "0 1\t99999999999999999999\n", 2, "out of range");
  for (const char* label : {"", "x", "1.5", "1.0e0", "1 1", " 1", "0x1", "nan", "+1"})
    check_refused("parity", head + "0 1\t" + label + "\n", 2, "is not a number");
  check_refused("parity", head + "0 1\t1\n1 1", 3, "two columns");  // cut off in a row
  check_refused("modular-arithmetic", head + "( 1 + 2\t3\n", 2, "never closed");
  check_refused("modular-arithmetic", head + "( 1 + 10 )\t3\n", 2, "unknown token '10'");
  check_refused("missing-duplicate", head + "0 1 0 2\t1\n0 1 0 1\t1\n", 3, "no hole");
}

TEST_CASE("rows that are too long or nested too deeply are refused") {
  std::string row;
  for (size_t i = 0; i < max_row_tokens; ++i) row += "1 ";
  CHECK(parse("parity", "Source\tTarget\n" + row + "\t0\n")[0].tokens.size() == max_row_tokens);
  check_refused("parity", "Source\tTarget\n" + row + "1\t1\n", 2, "more than 100000 tokens");
  std::string nested;
  for (int i = 0; i < 10000; ++i) nested += "[MAX 1 ";
  nested += "2";
  for (int i = 0; i < 10000; ++i) nested += " ]";
  check_refused("list-operations", "Source\tTarget\n" + nested + "\t2\n", 2, "nested deeper");
}

TEST_CASE("the first wrong label is named by its line") {
  const auto rows = parse("parity", "Source\tTarget\n0 1\t1\n1 1\t1\n1\t0\n");
  const auto wrong = first_wrong_label(find_task("parity"), rows);
  REQUIRE(wrong);
  CHECK(wrong->line == 3);
  CHECK(wrong->written == 1);
  CHECK(wrong->computed == 0);
  // A malformed row is bad input even when a wrong label stands before it.
  check_refused("parity", "Source\tTarget\n0 1\t0\n1 2\t1\n", 3, "unknown token");
}

TEST_CASE("files that cannot be read or written say so") {
  const Task& parity = find_task("parity");
  const auto folder = std::filesystem::temp_directory_path();
  CHECK_THROWS_WITH_AS(read_data_file(parity, folder / "no-such-file.tsv"),
                       Contains("no-such-file.tsv"), InputError);
  CHECK_THROWS_WITH_AS(read_data_file(parity, folder), Contains("folder"), InputError);
  const auto rows = generate_examples(parity, 1, 5, 1, 0);
  CHECK_THROWS_AS(write_data_file(parity, folder / "no-such-folder" / "F.tsv", rows), InputError);
}
