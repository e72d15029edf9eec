// Text as lines of cells: what the readers of metrics.csv, results.csv, studies' tables and data
// files have in common.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "error.h"

namespace focus {

// Goes through a text line by line. Lines end in LF or CRLF, the last one perhaps in neither; a
// byte order mark at the beginning is dropped, which spreadsheets and Windows put there.
class CsvReader {
 public:
  // `name` stands for the file in messages.
  CsvReader(std::string_view text, std::string_view name, char separator = ',')
      : text_(text), name_(name), separator_(separator) {
    if (text_.starts_with("\xef\xbb\xbf")) text_.remove_prefix(3);
  }

  bool next() {  // false: that was the last line
    if (text_.empty()) return false;
    const size_t length = std::min(text_.find('\n'), text_.size());
    line_ = text_.substr(0, length);
    text_.remove_prefix(std::min(length + 1, text_.size()));
    if (line_.ends_with('\r')) line_.remove_suffix(1);
    ++number_;
    return true;
  }
  bool is_last() const { return text_.empty(); }
  int number() const { return number_; }  // of the line, from 1
  std::string_view line() const { return line_; }

  // The line, cut at each separator.
  const std::vector<std::string_view>& cells() {
    cells_.clear();
    std::string_view rest = line_;
    for (;;) {
      const size_t end = std::min(rest.find(separator_), rest.size());
      cells_.push_back(rest.substr(0, end));
      if (end == rest.size()) return cells_;
      rest.remove_prefix(end + 1);
    }
  }

  // The line with quotes as spreadsheets write them: in a quoted cell a separator is text, and ""
  // is a quotation mark. Blanks around a cell mean nothing.
  struct Cell {
    std::string text;
    bool quoted = false;
  };
  std::vector<Cell> quoted_cells() const {
    std::vector<Cell> cells(1);
    bool inside = false;
    for (size_t i = 0; i < line_.size(); ++i) {
      Cell& cell = cells.back();
      const char c = line_[i];
      if (inside && c == '"' && i + 1 < line_.size() && line_[i + 1] == '"') {
        cell.text += line_[++i];
      } else if (inside) {
        if (c == '"')
          inside = false;
        else
          cell.text += c;
      } else if (c == '"' && !cell.quoted && is_blank(cell.text)) {
        cell = {"", true};
        inside = true;
      } else if (c == separator_) {
        cells.emplace_back();
      } else if (!cell.quoted || !is_blank(std::string_view(&c, 1))) {
        if (cell.quoted) fail("text after the quotation marks of a cell");
        cell.text += c;
      }
    }
    if (inside) fail("a quotation mark is not closed");
    for (Cell& cell : cells)
      if (!cell.quoted) cell.text = std::string(trimmed(cell.text));
    return cells;
  }

  template <class... Args>
  [[noreturn]] void fail(const Args&... args) const {
    fail_input(name_, ", line ", number_, ": ", args...);
  }

  static std::string_view trimmed(std::string_view text) {
    const size_t begin = std::min(text.find_first_not_of(" \t"), text.size());
    text.remove_prefix(begin);
    return text.substr(0, text.find_last_not_of(" \t") + 1);
  }

 private:
  static bool is_blank(std::string_view text) { return trimmed(text).empty(); }

  std::string_view text_, line_;
  std::string name_;
  char separator_;
  int number_ = 0;
  std::vector<std::string_view> cells_;
};

}  // namespace focus
