// A study's table: text with a column for each setting that is named, and a row for each group of
// runs. Here the text becomes cells; study.h says what the cells mean.
//
//   # Does depth matter?
//   task,       attention, k, blocks, seeds
//   even-pairs, full,       , 2|4,    3
//   even-pairs, topk,      5, 2|4,    3
//
// Commas separate columns; a cell may hold several values, separated by blanks or '|'. Blanks
// around a cell, empty lines and lines that begin with '#' mean nothing. LF or CRLF; a cell may
// stand in double quotes, as spreadsheets write it, and then hold commas; the name of a data file
// in quotes is one value, with its blanks and '|'.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "error.h"

namespace focus {

struct TableRow {
  int line = 0;                                 // in the file, from 1
  std::vector<std::vector<std::string>> cells;  // [column][value]; no value: the default
};

struct Table {
  std::string name;  // of the file, for messages
  int header_line = 0;
  std::vector<std::string> columns;
  std::vector<TableRow> rows;

  template <class... Args>
  [[noreturn]] void fail(int line, const Args&... args) const {
    fail_input(name, ", line ", line, ": ", args...);
  }
  template <class... Args>
  [[noreturn]] void fail_cell(int line, std::string_view column, const Args&... args) const {
    fail_input(name, ", line ", line, ", column '", column, "': ", args...);
  }
};

// InputError with line and column for a header with an empty or repeated column, a row with another
// number of cells than the header, the same value twice in a cell, and a table without rows.
Table parse_table(std::string_view text, const std::string& name);

}  // namespace focus
