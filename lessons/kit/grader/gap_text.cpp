#include "gap_text.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <sstream>

#include "error.h"

namespace focus::kit {

namespace {

std::string trimmed(const std::string& line) {
  const size_t first = line.find_first_not_of(" \t"), last = line.find_last_not_of(" \t\r");
  return first == std::string::npos ? "" : line.substr(first, last - first + 1);
}

// Is this line the first ("gap") or last ("end of gap") of the gap with this name? Lessons may have
// been renumbered since.
bool is_marker(const std::string& line, const std::string& what, const std::string& name) {
  const std::string begin = "// ---- " + what + " ", text = trimmed(line);
  return text.starts_with(begin) && text.size() > begin.size() + 3 &&
         text.compare(begin.size() + 2, name.size() + 2, " " + name + " ") == 0;
}

bool begins_word(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80);
}
bool in_word(char c) {
  return begins_word(c) || std::isdigit(static_cast<unsigned char>(c));
}

// "#pragma unroll 4", the one line for the preprocessor that our kernels have.
bool is_unroll(const std::string& line) {
  const std::string begin = "#pragma unroll", text = trimmed(line);
  return text.starts_with(begin) &&
         text.find_first_not_of(" 0123456789", begin.size()) == std::string::npos;
}

struct Token {
  enum Kind { word, number, quoted, sign } kind;
  std::string text;
  int line;
};

// Thrown where a text is not what the compiler must see: the reason, with its line.
struct Refused {
  std::string why;
};

template <class... Args>
[[noreturn]] void refuse(int line, const Args&... why) {
  throw Refused{str("line ", line, ": ", why...)};
}

// C++ without its dark corners: whatever a compiler might read otherwise is refused.
std::vector<Token> read_tokens(const std::string& text, int line) {
  std::vector<Token> tokens;
  // Two lines that a compiler joins, or one that it cuts, could hide an end of a comment from us.
  std::istringstream lines(text);
  int number = line;
  for (std::string one; std::getline(lines, one); ++number) {
    const size_t last = one.find_last_not_of(std::string_view(" \t\r\f\v\0", 6));
    if (last != std::string::npos && one[last] == '\\')
      refuse(number, "a \\ at the end of the line");
    if (one.find('\r') < one.size() - 1) refuse(number, "a control character");
  }
  const auto at = [&](size_t i) { return i < text.size() ? text[i] : '\n'; };
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '\n') {
      ++line, ++i;
    } else if (c == ' ' || c == '\t' || (c == '\r' && at(i + 1) == '\n')) {
      ++i;
    } else if (c == '/' && at(i + 1) == '/') {
      i = std::min(text.find('\n', i), text.size());
    } else if (c == '/' && at(i + 1) == '*') {
      const size_t end = text.find("*/", i + 2);
      if (end == std::string::npos) refuse(line, "a comment without an end");
      line += int(std::count(text.begin() + ptrdiff_t(i), text.begin() + ptrdiff_t(end), '\n'));
      i = end + 2;
    } else if (c == '"' || c == '\'') {
      const size_t begin = i;
      for (++i; at(i) != c; ++i) {
        if (at(i) == '\\') ++i;
        if (at(i) == '\n' || at(i) == '\r') refuse(line, "a quote without an end");
      }
      tokens.push_back({Token::quoted, text.substr(begin, ++i - begin), line});
    } else if (std::isdigit(static_cast<unsigned char>(c)) ||
               (c == '.' && std::isdigit(static_cast<unsigned char>(at(i + 1))))) {
      const size_t begin = i++;
      while (in_word(at(i)) || at(i) == '.' || (at(i) == '\'' && in_word(at(i + 1))) ||
             ((at(i) == '+' || at(i) == '-') && std::strchr("eEpP", text[i - 1])))
        ++i;
      tokens.push_back({Token::number, text.substr(begin, i - begin), line});
    } else if (begins_word(c)) {
      const size_t begin = i;
      while (in_word(at(i))) ++i;
      tokens.push_back({Token::word, text.substr(begin, i - begin), line});
      if (at(i) == '"' && tokens.back().text.ends_with("R")) refuse(line, "a raw string");
    } else if (c == '#' && is_unroll(text.substr(i, text.find('\n', i) - i))) {
      i = std::min(text.find('\n', i), text.size());
    } else if (c == '#' || c == '\\' || (c == '%' && at(i + 1) == ':')) {
      refuse(line, "a line for the preprocessor or a \\");
    } else if ((c == '<' && at(i + 1) == '%') || (c == '%' && at(i + 1) == '>') ||
               (c == '<' && at(i + 1) == ':') || (c == ':' && at(i + 1) == '>')) {
      refuse(line, "two signs that stand for one bracket (write a blank between them)");
    } else if (std::iscntrl(static_cast<unsigned char>(c))) {
      refuse(line, "a control character");
    } else {
      tokens.push_back({Token::sign, std::string(1, c), line});
      ++i;
    }
  }
  return tokens;
}

void check_brackets(const std::vector<Token>& tokens) {
  std::vector<Token> open;
  for (const Token& token : tokens) {
    if (token.kind != Token::sign) continue;
    const char c = token.text[0];
    if (std::strchr("([{", c)) open.push_back(token);
    if (!std::strchr(")]}", c)) continue;
    const char* const pairs[] = {"()", "[]", "{}"};
    const bool fits = !open.empty() && std::any_of(pairs, pairs + 3, [&](const char* pair) {
      return pair[0] == open.back().text[0] && pair[1] == c;
    });
    if (!fits) refuse(token.line, "a ", c, " that closes nothing in the gap");
    open.pop_back();
  }
  if (!open.empty()) refuse(open.back().line, "a ", open.back().text, " without its end");
}

// Names that change how the compiler reads the rest, or by which code would act on the test's
// records instead of passing it. Printing is not among them.
void check_names(const std::vector<Token>& tokens, const std::set<std::string>& reserved) {
  static const std::set<std::string> never = {
      "asm",     "gnu",      "clang",    "environ", "const_cast", "syscall", "fdopen",
      "dprintf", "vdprintf", "pwrite",   "writev",  "sendfile",   "splice",  "dlopen",
      "dlsym",   "mmap",     "mprotect", "execv",   "execve",     "execvp",  "execl",
      "execlp",  "execle",   "ptrace",   "longjmp", "siglongjmp"};
  // These could be a student's own variables.
  static const std::set<std::string> calls = {"write", "send", "dup", "dup2", "fork", "clone"};
  for (size_t i = 0; i < tokens.size(); ++i) {
    const Token& token = tokens[i];
    if (token.kind != Token::word) continue;
    std::string lower = token.text;
    for (char& c : lower) c = char(std::tolower(static_cast<unsigned char>(c)));
    const auto sign = [&](size_t at, const char* text) {
      return at < tokens.size() && tokens[at].text == text;
    };
    const bool member =
        i > 0 && (sign(i - 1, ".") || (i > 1 && sign(i - 1, ">") && sign(i - 2, "-")));
    const bool global = i > 1 && sign(i - 1, ":") && sign(i - 2, ":");
    const bool belongs_to_compiler =
        token.text.starts_with("_") || token.text.find("__") != std::string::npos;
    const bool of_tests = (token.text == "test" && sign(i + 1, ":") && sign(i + 2, ":")) ||
                          (token.text == "namespace" && !sign(i + 1, "std"));
    if (never.count(token.text) || lower.starts_with("doctest") || of_tests ||
        (belongs_to_compiler && !reserved.count(token.text)) ||
        (calls.count(token.text) && !member && (global || sign(i + 1, "("))))
      refuse(token.line, "the name ", token.text, ", which no gap needs");
  }
}

}  // namespace

GapText written_in(const std::string& file, const Gap& gap) {
  GapText written;
  std::istringstream lines(file);
  int number = 0, first = 0, last = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    const bool begins = is_marker(line, "gap", gap.name),
               ends = is_marker(line, "end of gap", gap.name);
    if ((begins && first) || (ends && (!first || last)))
      return {"the marker lines of this gap are not as they were in " + gap.file, "", 0, false};
    if (ends) last = number;
    if (first && !last) written.text += line + "\n";
    if (begins) first = number;
  }
  if (!last)
    return {
        str("the ", first ? "last" : "first", " marker line of this gap is gone from ", gap.file),
        "", 0, false};
  written.line = first + 1;
  // Outside of comments; in one it may have been kept as a reminder.
  try {
    const std::vector<Token> tokens = read_tokens(written.text, written.line);
    for (size_t i = 0; i + 1 < tokens.size(); ++i)
      written.empty |= tokens[i].text == "GAP" && tokens[i + 1].text == "(";
  } catch (const Refused&) {
  }
  return written;
}

std::set<std::string> reserved_names(const std::vector<std::string>& sources) {
  std::set<std::string> names;
  for (const std::string& text : sources)
    for (size_t i = 0; i < text.size();) {
      const size_t begin = i;
      while (i < text.size() && in_word(text[i])) ++i;
      const std::string word = text.substr(begin, i - begin);
      if (word.starts_with("__") && !word.starts_with("__builtin") && !word.starts_with("__a"))
        names.insert(word);
      if (i == begin) ++i;
    }
  return names;
}

std::string refusal(const GapText& written, const std::set<std::string>& reserved) {
  if (written.text.size() > 65536) return "it is longer than 64 KiB";
  try {
    const std::vector<Token> tokens = read_tokens(written.text, written.line);
    check_brackets(tokens);
    check_names(tokens, reserved);
  } catch (const Refused& refused) {
    return refused.why;
  }
  return "";
}

std::vector<std::string> unusual(const std::string& text) {
  static const std::set<std::string> names = {"reinterpret_cast",
                                              "uintptr_t",
                                              "intptr_t",
                                              "thread",
                                              "jthread",
                                              "async",
                                              "exit",
                                              "quick_exit",
                                              "abort",
                                              "atexit",
                                              "signal",
                                              "raise",
                                              "getenv",
                                              "system",
                                              "fopen",
                                              "ofstream",
                                              "ifstream",
                                              "stdout",
                                              "filesystem",
                                              "set_terminate"};
  std::set<std::string> found;
  try {
    const std::vector<Token> tokens = read_tokens(text, 1);
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (names.count(tokens[i].text)) found.insert(tokens[i].text);
      if (i > 0 && tokens[i - 1].text == "*" && tokens[i].text == ")") found.insert("pointer cast");
    }
  } catch (const Refused&) {
  }
  return {found.begin(), found.end()};
}

std::string standard_includes(const std::string& file) {
  static const std::set<std::string> headers = {
      "algorithm",  "array",   "bit",      "bitset",   "cassert", "cfloat",        "climits",
      "cmath",      "cstddef", "cstdint",  "cstdio",   "cstdlib", "cstring",       "deque",
      "functional", "iomanip", "iostream", "iterator", "limits",  "list",          "map",
      "numbers",    "numeric", "optional", "queue",    "set",     "sstream",       "span",
      "stdexcept",  "string",  "tuple",    "utility",  "variant", "unordered_map", "vector"};
  std::string found;
  std::istringstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    line = trimmed(line);
    if (!line.starts_with("#include <") || !line.ends_with(">")) continue;
    if (headers.count(line.substr(10, line.size() - 11)) && found.find(line) == std::string::npos)
      found += line + "\n";
  }
  return found;
}

std::string tokens(const std::string& text) {
  std::string all;
  try {
    for (const Token& token : read_tokens(text, 1)) all += token.text + " ";
  } catch (const Refused&) {
    return text;
  }
  return all;
}

}  // namespace focus::kit
