// Tags in the sources: comments that say what a student writes, with which help, and how it can go
// wrong. One source; the student's tree, the snapshot after each lesson, the solutions and the
// wrong versions that tests must catch are all made from it. Ordinary builds see comments only.
//
//     //@ begin 05 select-row points=8
//     //@ plan for each score: find its place, move the rest down, put it there
//     //@ hint 1 which of two equal scores has to stay in front?
//     //@ hint 2 README, "Ties"
//     //@ hint 3 for each j: at = ...
//     //@ notice the comparison is strict
//     //@ mutant ties-high: of equal scores the higher index wins
//     //~ for (; at > 0 && best[at - 1] <= s[j]; --at) {
//     for (; at > 0 && best[at - 1] < s[j]; --at) {
//       ...
//     }
//     //@ end
//
//   begin NN NAME points=P   a gap of lesson NN: 3 to 20 lines that are complete statements and
//                            declare nothing that later lines use
//   plan, hint 1..3, notice  shown in the gap, by `make hint-NN`, and once the test passes; a
//   longer
//                            text repeats the tag on each line
//   mutant NAME: WORDS       the next code line is wrong like this: it becomes the //~ lines that
//                            follow (none: it is deleted). mutant(2) replaces two lines, mutant(0)
//                            inserts before the next. Several may stand above one line; each sees
//                            the gap without the others' changes. Names differ over the project.
//   from NN ... end          code that exists from lesson NN on (it may hold gaps); `before` starts
//                            its //~ lines that earlier lessons have instead
//   authors ... end          lines that no student's tree has
//
// Tags may be indented. In Makefiles and shell scripts they begin with #@ and #~. Gaps do not nest.
#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace focus::kit {

struct Line {
  std::string text;
  int number = 0;
};

struct Mutant {
  std::string name, words;
  int line = 0;                    // of its tag
  size_t first = 0, count = 1;     // which of the gap's code lines it replaces
  std::vector<std::string> wrong;  // by what
};

struct Gap {
  std::string lesson, name, file;
  int line = 0, end_line = 0;  // of its begin and end tags
  int points = 0;
  std::vector<std::string> plan, notice;
  std::array<std::vector<std::string>, 3> hints;
  std::vector<Line> code;
  std::vector<Mutant> mutants;
};

// A stretch of a file: lines, a gap, or a part that exists from a lesson on.
struct Piece {
  enum Kind { lines, gap, from } kind = lines;
  std::vector<Line> text;     // lines; from: what earlier lessons have instead
  Gap the_gap;                // gap
  int lesson = 0;             // from
  std::vector<Piece> inside;  // from
};

struct TaggedFile {
  std::string path;
  std::vector<Piece> pieces;
};

inline constexpr int every_lesson = 98;  // as a lesson number: the whole project

// Reads a file's tags; a file without tags is one piece of lines. InputError names file and line.
TaggedFile read_tags(const std::filesystem::path& root, const std::string& path);

// All gaps of a file, in order.
std::vector<Gap> gaps_of(const TaggedFile& file);

// The file as it stands at `lesson`, without tags. What stands for a gap is up to `gap_text`: whole
// lines, each ended.
std::string render(const TaggedFile& file, int lesson,
                   const std::function<std::string(const Gap&)>& gap_text);

std::string code_text(const Gap& gap);          // the solution
std::string stub_text(const Gap& gap);          // the plan, and a call that fails
std::string first_line_of_gap(const Gap& gap);  // by which grading finds a student's text again
std::string last_line_of_gap(const Gap& gap);

// The file with all its mutants; the environment variable FOCUS_MUTANT chooses one at run time.
std::string render_mutants(const TaggedFile& file);

}  // namespace focus::kit
