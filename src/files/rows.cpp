#include "files/rows.h"

#include <algorithm>

#include "files/atomic_file.h"
#include "files/csv.h"

namespace focus {

using Rows = std::vector<std::vector<std::string>>;

static Rows rows_of(const std::filesystem::path& file, size_t columns, const std::string& names) {
  Rows rows;
  bool named = false;
  const std::string text = read_file(file, 1 << 25);
  for (CsvReader lines(text, file.string()); lines.next();) {
    if (lines.line().empty() || lines.line()[0] == '#') continue;
    if (!named) {
      if (!names.empty() && lines.line() != names) lines.fail("its columns are not ", names);
      named = true;
      continue;
    }
    std::vector<std::string>& row = rows.emplace_back();
    for (CsvReader::Cell& cell : lines.quoted_cells()) row.push_back(std::move(cell.text));
    if (row.size() != columns) lines.fail("a row of ", row.size(), " cells, not ", columns);
  }
  return rows;
}

Rows read_rows(const std::filesystem::path& file, size_t columns) {
  return rows_of(file, columns, "");
}

Rows read_rows(const std::filesystem::path& file, const std::string& names) {
  return rows_of(file, 1 + size_t(std::count(names.begin(), names.end(), ',')), names);
}

}  // namespace focus
