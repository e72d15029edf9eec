// Fuzz target for the data reader: `fuzz_data_file SECONDS [SEED]`.
//
// Whatever the reader accepts must be sound: ids and labels in range, rows that the evaluator
// takes, and the same rows again after writing and reading. fuzz.h has the rest.
#include <stdexcept>

#include "files/data_file.h"
#include "fuzz.h"
#include "tasks/dataset.h"

using namespace focus;

static void require(bool sound, const char* what) {
  if (!sound) throw std::logic_error(what);
}

static void read_as(const Task& task, const std::string& bytes) {
  const std::vector<Example> rows = parse_data(task, bytes, "fuzz.tsv");
  require(!rows.empty(), "no rows were returned");
  for (const Example& row : rows) {
    require(!row.tokens.empty() && row.tokens.size() <= max_row_tokens, "row length");
    for (uint8_t token : row.tokens) require(token < task.tokens.size(), "token out of range");
    require(row.label >= 0 && row.label < task.classes, "label out of range");
    const int label = task.evaluate(row.tokens);
    require(label >= 0 && label < task.classes, "computed label out of range");
  }
  require(parse_data(task, format_data(task, rows), "again") == rows, "round trip");
  first_wrong_label(task, rows);
}

int main(int argc, char** argv) {
  std::vector<std::string> corpus;
  for (const Task& task : all_tasks()) {
    for (int length : {4, 23})
      corpus.push_back(format_data(task, generate_examples(task, 4, length, 1, train_split)));
  }
  corpus.push_back("Source\tTarget\r\n( ( ( [MIN 7 ) ( ( ( [SM 2 ) 9 ) ] ) ) ] )\t1\r\n");
  corpus.push_back("Source\tTarget\n8 3 7 6 2 9\t4\n( 3 × − 2 )\t4\n");
  return fuzz_main(argc, argv, "fuzz_data_file", corpus, [](const std::string& bytes) {
    // Each file is read as every task; it counts as accepted if one task takes it.
    bool accepted = false;
    for (const Task& task : all_tasks()) accepted |= accepts([&] { read_as(task, bytes); });
    return accepted;
  });
}
