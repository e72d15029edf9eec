// Recorded tables: CSV files whose first lines may be notes, "# key: text", before the line of
// column names.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace focus {

// The rows below the column names, cell by cell; a quoted cell may hold commas. InputError names
// the line where a row has another number of cells, or the columns other names.
std::vector<std::vector<std::string>> read_rows(const std::filesystem::path& file, size_t columns);
std::vector<std::vector<std::string>> read_rows(const std::filesystem::path& file,
                                                const std::string& names);

}  // namespace focus
