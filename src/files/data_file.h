// Data files: one example a line, as text.
//
//   Source<TAB>Target        header
//   0 1 1 0 1<TAB>1          tokens separated by blanks, a tab, the label
//
// Lines end in LF or CRLF; the last one may lack its end, or be empty. A byte order mark at the
// beginning, blanks after a label and ".0" behind it mean nothing. The list-operations files of
// Long Range Arena load as they are: the round brackets that they put around pairs are dropped. The
// arithmetic tasks also take the numeric token id, × and − for a token (Task::spellings).
//
// A file is not trusted. It may hold at most max_data_file_bytes, max_data_rows rows and
// max_row_tokens tokens in a row. Every row must be a string of the task: what a label could not be
// computed for is refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tasks/task.h"

namespace focus {

inline constexpr size_t max_data_file_bytes = size_t{1} << 30;
inline constexpr size_t max_data_rows = 10'000'000;
inline constexpr size_t max_row_tokens = 100'000;

// The token ids of a text such as "0 1 1 0". Throws InputError that names an unknown token.
// It does not ask whether they make a string of the task (Task::evaluate does).
std::vector<uint8_t> parse_tokens(const Task& task, std::string_view text);

// The opposite: token texts with one blank between them. Ids must be the task's own (no PAD).
std::string format_tokens(const Task& task, std::span<const uint8_t> tokens);

// All rows of a file's bytes, with their labels as written. Row i stands on line i + 2. Throws
// InputError with `name` and the line of the first fault.
std::vector<Example> parse_data(const Task& task, std::string_view bytes, std::string_view name);
std::vector<Example> read_data_file(const Task& task, const std::filesystem::path& path);

// The opposite, with LF.
std::string format_data(const Task& task, std::span<const Example> examples);
// To a new file: InputError if there is one.
void write_data_file(const Task& task, const std::filesystem::path& path,
                     std::span<const Example> examples);

// A label that its tokens contradict. The header is line 1.
struct LabelMismatch {
  int line, written, computed;
};

// The first example of a file (as parse_data returns it) whose label is not the one its tokens
// give.
std::optional<LabelMismatch> first_wrong_label(const Task& task, std::span<const Example> examples);

}  // namespace focus
