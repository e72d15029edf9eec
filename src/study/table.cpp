#include "study/table.h"

#include <algorithm>

namespace focus {

namespace {

constexpr std::string_view blanks = " \t";

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

std::vector<std::string_view> cells_of(std::string_view line) {
  std::vector<std::string_view> cells;
  for (;;) {
    const size_t comma = line.find(',');
    std::string_view cell = trimmed(line.substr(0, comma));
    if (cell.size() >= 2 && cell.front() == '"' && cell.back() == '"')
      cell = trimmed(cell.substr(1, cell.size() - 2));
    cells.push_back(cell);
    if (comma == std::string_view::npos) return cells;
    line.remove_prefix(comma + 1);
  }
}

std::vector<std::string> values_of(std::string_view cell) {
  std::vector<std::string> values;
  constexpr std::string_view separators = " \t|";
  for (size_t at = 0; (at = cell.find_first_not_of(separators, at)) < cell.size();) {
    const size_t end = std::min(cell.find_first_of(separators, at), cell.size());
    values.emplace_back(cell.substr(at, end - at));
    at = end;
  }
  return values;
}

void read_header(Table& table, int line, std::string_view text) {
  table.header_line = line;
  for (const std::string_view cell : cells_of(text)) {
    const size_t column = table.columns.size() + 1;
    if (cell.empty())
      table.fail(line, "column ", column, " has no name; is there a comma too many?");
    if (std::find(table.columns.begin(), table.columns.end(), cell) != table.columns.end())
      table.fail(line, "column ", column, ": '", cell, "' is there a second time");
    table.columns.emplace_back(cell);
  }
}

void read_row(Table& table, int line, std::string_view text) {
  const std::vector<std::string_view> cells = cells_of(text);
  if (cells.size() != table.columns.size())
    table.fail(line, cells.size(), " cells, but the header (line ", table.header_line, ") has ",
               table.columns.size(), " columns; an empty cell keeps its comma");
  TableRow row{line, {}};
  for (size_t c = 0; c < cells.size(); ++c) {
    row.cells.push_back(values_of(cells[c]));
    const std::vector<std::string>& values = row.cells.back();
    for (size_t i = 0; i < values.size(); ++i)
      if (std::find(values.begin(), values.begin() + ptrdiff_t(i), values[i]) !=
          values.begin() + ptrdiff_t(i))
        table.fail_cell(line, table.columns[c], "'", values[i], "' is there a second time");
  }
  table.rows.push_back(std::move(row));
}

}  // namespace

Table parse_table(std::string_view text, const std::string& name) {
  Table table{name, 0, {}, {}};
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);  // spreadsheets mark UTF-8 so
  for (int line = 1; !text.empty(); ++line) {
    const size_t length = std::min(text.find('\n'), text.size());
    std::string_view content = text.substr(0, length);
    text.remove_prefix(std::min(length + 1, text.size()));
    if (content.ends_with('\r')) content.remove_suffix(1);
    content = trimmed(content);
    if (content.empty() || content.starts_with('#')) continue;
    if (table.columns.empty())
      read_header(table, line, content);
    else
      read_row(table, line, content);
  }
  if (table.rows.empty())
    fail_input(name, ": no ", table.columns.empty() ? "header" : "rows",
               "; a table has a header line, as 'task,attention,k', and a line for each group of "
               "runs");
  return table;
}

}  // namespace focus
