// What a student wrote into a gap, taken out of a submitted file, and what the grader refuses in
// it.
//
// Only this text is graded; the rest of the file comes from the checkout. It is put into the middle
// of a function, and must stay there: no line for the preprocessor, nothing that closes the
// function's braces or leaves a comment open, no names that belong to the compiler.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "../gaps.h"

namespace focus::kit {

struct GapText {
  std::string problem;  // why there is no text: "its marker lines are missing"
  std::string text;     // whole lines
  int line = 0;         // of the file, where it begins
  bool empty = false;   // the stub's call still stands there
};

GapText written_in(const std::string& file, const Gap& gap);

// The names that begin with two underscores and may stand in a gap: those of CUDA that our own
// kernels use.
std::set<std::string> reserved_names(const std::vector<std::string>& sources);

// Why the grader does not take this text, "line 12: …"; empty: it does.
std::string refusal(const GapText& written, const std::set<std::string>& reserved);

// What a computing gap seldom needs and an attack on the test's memory does: for a reader's eye.
std::vector<std::string> unusual(const std::string& text);

// The lines `#include <…>` of a submitted file that name headers of the standard library for
// computing and printing; others are ours to choose.
std::string standard_includes(const std::string& file);

// The text's tokens, one blank between any two: equal for two texts that differ in comments and
// layout only.
std::string tokens(const std::string& text);

}  // namespace focus::kit
