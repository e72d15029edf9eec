// The learning kit: everything that is made from the sources and the lessons' gaps but grades
// (grader/) and tables (tables/). `make` calls it. A student waits until it is compiled: it
// includes no more than it needs.
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <optional>

#include "error.h"
#include "files/atomic_file.h"
#include "manifest.h"
#include "suggest.h"
#include "tool.h"
#include "tree.h"

using namespace focus;
using namespace focus::kit;
namespace fs = std::filesystem;

namespace {

const char* const usage =
    R"(What is made from the sources and the lessons' gaps: students' trees, solutions
Usage: kit [--root CHECKOUT] COMMAND

  start LESSON FOLDER               make a student's tree with the gaps of a lesson
  snapshot [--stubs] LESSON FOLDER  make the complete tree after a lesson; with its gaps empty
  hints LESSON                      a lesson's gaps and hints, tab-separated
  solution LESSON [GAP]             our code for a lesson's gaps
  excerpts FOLDER                   for each gap a file of its name: FILE:LINE, then our code
  fill TREE GAP                     put our code into one gap of a student's tree
  mistakes                          all mistakes: lesson, gap, name, place, words, tab-separated
  with-mistakes FOLDER              make a tree of sources that can make all mistakes

build/grader grades, build/tables writes the tables.
)";

Gap find_gap_named(const Manifest& manifest, const std::string& name) {
  std::string known;
  for (const Gap& gap : all_gaps(manifest)) {
    if (gap.name == name) return gap;
    known += " " + gap.name;
  }
  fail_input("there is no gap '", name, "'; there are:", known);
}

void write_excerpts(const Manifest& manifest, const fs::path& folder) {
  fs::create_directories(folder);
  for (const Gap& gap : all_gaps(manifest))
    write_file_atomically(folder / gap.name, str(gap.file, ":", gap.line, "\n", code_text(gap)));
}

void print_solution(const Manifest& manifest, const std::string& lesson, const std::string& name) {
  int shown = 0;
  for (const Gap& gap : gaps_of_lesson(manifest, lesson)) {
    if (!name.empty() && gap.name != name) continue;
    std::cout << (shown++ ? "\n" : "") << "--- " << gap.name << ", " << gap.file << " ---\n"
              << code_text(gap);
    for (const std::string& line : gap.notice) std::cout << "  notice: " << line << "\n";
  }
  if (!shown) fail_input("lesson ", lesson, " has no gap '", name, "'");
}

void list_mistakes(const Manifest& manifest) {
  for (const Gap& gap : all_gaps(manifest))
    for (const Mistake& m : gap.mistakes)
      std::cout << gap.lesson << "\t" << gap.name << "\t" << m.name << "\t" << gap.page << ":"
                << m.line << "\t" << m.words << "\n";
}

// Puts our code into one gap of a student's tree; for walking through a lesson as a check.
void fill(const Manifest& manifest, const fs::path& tree, const std::string& name) {
  const Gap gap = find_gap_named(manifest, name);
  const fs::path path = tree / gap.file;
  const std::string text = read_file(path, 1 << 20);
  if (!is_empty(text, gap)) fail_input(path.string(), ": the gap '", name, "' is not empty");
  write_file_atomically(path, with_solution(text, gap).value());
}

void start(const Manifest& manifest, const std::string& lesson, const std::string& folder) {
  write_student_tree(manifest, lesson, folder);
  std::cout << "Lesson " << manifest.lesson(lesson).folder << " is in " << folder << "\n  cd "
            << shell_word(folder) << "\n  less README.md\n  make test-" << lesson
            << "     # red until the gaps are filled\n";
}

int run(std::vector<std::string> words) {
  // An option before the command's words, wherever it stands.
  const auto take = [&](const std::string& option, bool has_value) -> std::optional<std::string> {
    const auto at = std::find(words.begin(), words.end(), option);
    if (at == words.end()) return {};
    if (has_value && at + 1 == words.end()) fail_input(option, " wants a value (see --help)");
    const std::string value = has_value ? at[1] : "";
    words.erase(at, at + (has_value ? 2 : 1));
    return value;
  };
  if (take("--help", false) || take("-h", false) || words.empty()) {
    (words.empty() ? std::cerr : std::cout) << usage;
    return words.empty() ? 2 : 0;
  }
  const Manifest manifest = read_manifest(take("--root", true).value_or("."));
  const bool stubs = take("--stubs", false).has_value();
  const std::string command = words[0];
  const auto is = [&](const char* name, size_t least, size_t most) {
    if (command != name) return false;
    if (words.size() - 1 < least || words.size() - 1 > most)
      fail_input("kit ", name, ": ", words.size() - 1, " arguments (see --help)");
    words.resize(most + 1);
    return true;
  };
  if (is("start", 2, 2)) return start(manifest, words[1], words[2]), 0;
  if (is("snapshot", 2, 2)) return write_snapshot(manifest, words[1], stubs, words[2]), 0;
  if (is("hints", 1, 1)) return std::cout << gap_table(gaps_of_lesson(manifest, words[1])), 0;
  if (is("solution", 1, 2)) return print_solution(manifest, words[1], words[2]), 0;
  if (is("excerpts", 1, 1)) return write_excerpts(manifest, words[1]), 0;
  if (is("fill", 2, 2)) return fill(manifest, words[1], words[2]), 0;
  if (is("mistakes", 0, 0)) return list_mistakes(manifest), 0;
  if (is("with-mistakes", 1, 1)) return write_with_mistakes(manifest, words[1]), 0;
  fail_input("kit: no command '", command, "' (see --help)");
}

}  // namespace

int main(int argc, char** argv) {
  return run_tool([&] { return run({argv + 1, argv + argc}); });
}
