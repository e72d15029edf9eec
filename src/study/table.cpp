#include "study/table.h"

#include <algorithm>

#include "files/csv.h"

namespace focus {

namespace {

// A quoted name of a file is one value, whatever it holds.
std::vector<std::string> values_of(const CsvReader::Cell& cell, const std::string& column) {
  if (cell.quoted && column.ends_with("-data"))
    return cell.text.empty() ? std::vector<std::string>() : std::vector{cell.text};
  std::vector<std::string> values;
  constexpr std::string_view separators = " \t|";
  for (size_t at = 0; (at = cell.text.find_first_not_of(separators, at)) < cell.text.size();) {
    const size_t end = std::min(cell.text.find_first_of(separators, at), cell.text.size());
    values.emplace_back(cell.text.substr(at, end - at));
    at = end;
  }
  return values;
}

void read_header(Table& table, const CsvReader& reader) {
  table.header_line = reader.number();
  for (const CsvReader::Cell& cell : reader.quoted_cells()) {
    const std::string name(CsvReader::trimmed(cell.text));
    const size_t column = table.columns.size() + 1;
    if (name.empty()) reader.fail("column ", column, " has no name; is there a comma too many?");
    if (std::find(table.columns.begin(), table.columns.end(), name) != table.columns.end())
      reader.fail("column ", column, ": '", name, "' is there a second time");
    table.columns.push_back(name);
  }
}

void read_row(Table& table, const CsvReader& reader) {
  const std::vector<CsvReader::Cell> cells = reader.quoted_cells();
  if (cells.size() != table.columns.size())
    reader.fail(cells.size(), " cells, but the header (line ", table.header_line, ") has ",
                table.columns.size(), " columns; an empty cell keeps its comma");
  TableRow row{reader.number(), {}};
  for (size_t c = 0; c < cells.size(); ++c) {
    row.cells.push_back(values_of(cells[c], table.columns[c]));
    const std::vector<std::string>& values = row.cells.back();
    for (size_t i = 0; i < values.size(); ++i)
      if (std::find(values.begin(), values.begin() + ptrdiff_t(i), values[i]) !=
          values.begin() + ptrdiff_t(i))
        table.fail_cell(row.line, table.columns[c], "'", values[i], "' is there a second time");
  }
  table.rows.push_back(std::move(row));
}

}  // namespace

Table parse_table(std::string_view text, const std::string& name) {
  Table table{name, 0, {}, {}};
  for (CsvReader reader(text, name); reader.next();) {
    const std::string_view content = CsvReader::trimmed(reader.line());
    if (content.empty() || content.starts_with('#')) continue;
    if (table.columns.empty())
      read_header(table, reader);
    else
      read_row(table, reader);
  }
  if (table.rows.empty())
    fail_input(name, ": no ", table.columns.empty() ? "header" : "rows",
               "; a table has a header line, as 'task,attention,k', and a line for each group of "
               "runs");
  return table;
}

}  // namespace focus
