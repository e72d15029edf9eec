#include "files/data_file.h"

#include <array>
#include <charconv>
#include <map>

#include "error.h"
#include "files/atomic_file.h"
#include "files/csv.h"
#include "files/printable.h"

namespace focus {
namespace {

constexpr std::string_view header = "Source\tTarget";

// Foreign bytes for a message: short, and without anything that a terminal would obey.
std::string printable(std::string_view text) {
  constexpr size_t most_shown = 40;
  std::string shown;
  for (char c : text.substr(0, most_shown)) {
    if (c >= ' ' && c <= '~')
      shown += c;
    else
      shown += "\\x" + hex_text({&c, 1});
  }
  return "'" + shown + (text.size() > most_shown ? "...'" : "'");
}

// From the text of a token to its id. Almost all tokens are one character: those are a table.
class TokenIds {
 public:
  static constexpr int dropped = -1, unknown = -2;

  explicit TokenIds(const Task& task) {
    single_.fill(unknown);
    for (const Spelling& spelling : task.spellings) add(spelling.text, spelling.id);
    for (size_t id = 0; id < task.tokens.size(); ++id) add(task.tokens[id], int(id));
  }

  int operator[](std::string_view text) const {
    if (text.size() == 1) return single_[uint8_t(text[0])];
    const auto found = longer_.find(text);
    return found == longer_.end() ? unknown : found->second;
  }

 private:
  void add(std::string_view text, int id) {
    if (text.size() == 1) {
      single_[uint8_t(text[0])] = id;
    } else {
      longer_.insert_or_assign(std::string(text), id);
    }
  }

  std::array<int, 256> single_;
  std::map<std::string, int, std::less<>> longer_;
};

std::vector<uint8_t> parse_row(const Task& task, const TokenIds& ids, std::string_view text) {
  std::vector<uint8_t> tokens;
  for (size_t at = 0; at < text.size();) {
    if (text[at] == ' ') {
      ++at;
      continue;
    }
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string_view word = text.substr(at, end - at);
    at = end;
    const int id = ids[word];
    if (id == TokenIds::dropped) continue;
    if (id == TokenIds::unknown) {
      std::string known;
      for (const std::string& token : task.tokens) known += " " + token;
      fail_input("unknown token ", printable(word), "; ", task.name, " knows", known);
    }
    if (tokens.size() == max_row_tokens) fail_input("more than ", max_row_tokens, " tokens");
    tokens.push_back(uint8_t(id));
  }
  return tokens;
}

int parse_label(const Task& task, std::string_view text) {
  int label = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), label);
  // Blanks may follow, and ".0", which tables of floating-point numbers put there.
  std::string_view rest = text.substr(size_t(end - text.data()));
  if (rest.starts_with(".0")) rest.remove_prefix(2);
  const bool whole = end != text.data() && rest.find_first_not_of(' ') == rest.npos;
  if (error == std::errc::invalid_argument || !whole) {
    fail_input("the label ", printable(text), " is not a number");
  }
  if (error != std::errc() || label < 0 || label >= task.classes) {
    fail_input("the label ", printable(text), " is out of range: ", task.name, " has labels 0 to ",
               task.classes - 1);
  }
  return label;
}

Example parse_line(const Task& task, const TokenIds& ids, CsvReader& lines) {
  const std::string_view line = lines.line();
  if (line.find('\0') != line.npos) fail_input("there is a NUL byte: this is not a text file");
  const std::vector<std::string_view>& cells = lines.cells();
  if (cells.size() != 2)
    fail_input("expected two columns with one tab between them, got ", printable(line));
  Example example;
  example.tokens = parse_row(task, ids, cells[0]);
  if (example.tokens.empty()) fail_input("the first column holds no token");
  example.label = parse_label(task, cells[1]);
  task.evaluate(example.tokens);  // throws if they are no string of the task
  return example;
}

}  // namespace

std::vector<uint8_t> parse_tokens(const Task& task, std::string_view text) {
  return parse_row(task, TokenIds(task), text);
}

std::string format_tokens(const Task& task, std::span<const uint8_t> tokens) {
  std::string text;
  for (uint8_t token : tokens) {
    if (!text.empty()) text += ' ';
    text += task.tokens.at(token);
  }
  return text;
}

std::vector<Example> parse_data(const Task& task, std::string_view bytes, std::string_view name) {
  if (bytes.empty()) fail_input(name, ", line 1: the file is empty");
  const TokenIds ids(task);
  std::vector<Example> examples;
  CsvReader lines(bytes, name, '\t');
  lines.next();
  if (lines.line() != header)
    lines.fail("expected the header 'Source<TAB>Target', got ", printable(lines.line()));
  while (lines.next()) {
    if (lines.line().empty() && lines.is_last()) break;
    if (examples.size() == max_data_rows) lines.fail("more than ", max_data_rows, " rows");
    try {
      examples.push_back(parse_line(task, ids, lines));
    } catch (const InputError& error) {
      lines.fail(error.what());
    }
  }
  if (examples.empty()) fail_input(name, ", line 1: there are no examples after the header");
  return examples;
}

std::vector<Example> read_data_file(const Task& task, const std::filesystem::path& path) {
  return parse_data(task, read_file(path, max_data_file_bytes), path.string());
}

std::string format_data(const Task& task, std::span<const Example> examples) {
  std::string text(header);
  text += '\n';
  for (const Example& example : examples) {
    text += str(format_tokens(task, example.tokens), '\t', example.label, '\n');
  }
  return text;
}

void write_data_file(const Task& task, const std::filesystem::path& path,
                     std::span<const Example> examples) {
  write_file_atomically(path, format_data(task, examples), IfThere::refuse);
}

std::optional<LabelMismatch> first_wrong_label(const Task& task,
                                               std::span<const Example> examples) {
  for (size_t i = 0; i < examples.size(); ++i) {
    const int computed = task.evaluate(examples[i].tokens);
    if (computed != examples[i].label) {
      return LabelMismatch{int(i) + 2, examples[i].label, computed};
    }
  }
  return std::nullopt;
}

}  // namespace focus
