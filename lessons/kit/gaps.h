// Gaps: what a student writes. The source marks where they are, in comments of one line each; what
// is said about a gap stands in its page, lessons/NN-name/gaps/NAME.md.
//
// In the source (in Makefiles and shell scripts with #@):
//
//     //@ gap 05 select-row       a gap of lesson 05: 3 to 20 lines up to its end, complete
//     ...                         statements that declare nothing which later lines use
//     //@ end
//     //@ from 05 ... //@ end     lines that exist from lesson 05 on; may hold gaps and more of
//     these
//     //@ authors ... //@ end     lines that no student's tree has
//
// In the page, these sections in this order, none of them empty:
//
//     # select-row, 8 points
//     ## Plan                     shown in the gap
//     ## Hint 1                   shown by `make hint-05`, one at a time
//     ## Hint 2
//     ## Hint 3                   pseudo-code, indented by four blanks
//     ## Notice                   shown once the lesson's test passes
//     ## Mistake ties-high: of equal scores the higher index wins
//     -for (; at > 0 && best[at - 1] < s[j]; --at) {
//     +for (; at > 0 && best[at - 1] <= s[j]; --at) {
//
// A mistake is a wrong version of the gap, which the lesson's test must catch. Each run of - lines
// stands in the gap exactly once, indentation aside, and becomes the + lines below it; to insert a
// line, name its neighbour. A mistake may have several such changes. Names of gaps and of mistakes
// are unique in the project. What breaks these rules fails in `make test`, with file and line.
#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace focus::kit {

struct Line {
  std::string text;
  int number = 0;
  bool of_page = false;  // not of the source
};

// Lines of a gap, and what a mistake makes of them.
struct Change {
  std::vector<Line> before, after;
};

struct Mistake {
  std::string name, words;
  int line = 0;  // of the page
  std::vector<Change> changes;
};

struct Gap {
  std::string lesson, name, file;
  int line = 0;      // of its marker
  std::string page;  // where the rest is from
  int points = 0;
  std::vector<std::string> plan, notice;
  std::array<std::vector<std::string>, 3> hints;
  std::vector<Line> code;
  std::vector<Mistake> mistakes;
};

// Lines of a file that belong together: a gap, or lines that exist from a lesson on.
struct Part {
  int from = 0;
  std::vector<Line> lines;
  std::vector<Gap> gap;  // none or one; its lines are in Gap::code
};

struct Source {
  std::string path;
  std::vector<Part> parts;
};

inline constexpr int every_lesson = 98;  // as a lesson number: the whole project

// Reads a file's markers and its gaps' pages. InputError names file and line.
Source read_source(const std::filesystem::path& root, const std::string& path);

std::vector<Gap> gaps_of(const Source& source);

// The folder of lesson "05", below `root`: "lessons/05-semantic-focus". None: InputError.
std::string lesson_folder(const std::filesystem::path& root, const std::string& number);

// The file as it stands at `lesson`, without markers. What stands for a gap is up to `gap_text`:
// whole lines, each ended.
std::string render(const Source& source, int lesson,
                   const std::function<std::string(const Gap&)>& gap_text);

std::string code_text(const Gap& gap);  // the solution
std::string stub_text(const Gap& gap);  // the plan, and a call that fails

// Of a student's file: is the gap still empty? The file with our code in the gap; nothing if the
// lines around the gap are gone.
bool is_empty(const std::string& text, const Gap& gap);
std::optional<std::string> with_solution(const std::string& text, const Gap& gap);

// The gap's lines with a mistake in them. InputError (page and line) where lines that it changes do
// not stand in the gap exactly once.
std::vector<Line> with_mistake(const Gap& gap, const Mistake& mistake);

// The file with all its mistakes and with its gaps empty as well. Environment variables choose when
// the program begins: FOCUS_MISTAKE a mistake, FOCUS_EMPTY the gaps that are empty, between blanks.
std::string render_mistakes(const Source& source);

}  // namespace focus::kit
