// Grading: points for each gap of a submission, by the tests of this checkout.
//
// Only the text in a submission's gaps is looked at; tests, Makefile and all else are ours. First
// all its gaps together are put into our tree, built and tested. If that fails, each gap is tested
// alone: the student's code there, our solutions in the others. GRADING.md says what this protects.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "../manifest.h"
#include "sandbox.h"
#include "upload.h"

namespace focus::kit {

struct GapGrade {
  std::string gap, result;  // "passes", "empty", "does not compile: …", "2 of 15 tests fail: …"
  std::string feedback;     // for the student: what the tests said
  int points = 0, of = 0;
  std::string code;                  // its tokens
  std::vector<std::string> same_as;  // students with equal tokens; "the solution" is ours
  std::vector<std::string> unusual;  // what a reader should look at
  std::string hash() const;          // of the tokens; empty if there are none
};

struct Grade {
  std::string student, id, tree, lesson, time;
  std::string problem;  // why nothing could be graded
  std::vector<GapGrade> gaps;
  std::vector<std::string> same_as;  // students with equal tokens in every gap
  std::string name() const;          // student and id
  int points() const;
  int of() const;
};

struct GradeOptions {
  std::string lesson;  // for submissions that do not say it
  Limits build{.seconds = 120, .memory_mb = 4096, .file_mb = 256, .output_mb = 8, .threads = 0};
  Limits test{.seconds = 60, .memory_mb = 2048, .file_mb = 0, .output_mb = 8, .threads = 256};
  int seconds = 300;                           // for all builds and tests of one submission
  std::filesystem::path work = "build/grade";  // our trees and their builds
};

// Grades submissions one after the other. One grader works in a folder `options.work` at a time:
// RunError if another one does.
class Grader {
 public:
  Grader(const Manifest& manifest, const GradeOptions& options);
  ~Grader();

  // Whatever is wrong with it is in the result.
  Grade grade(const std::filesystem::path& upload);

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

void mark_copies(std::vector<Grade>& grades);

std::string grade_table(const Grade& grade);
// {"graded": [{"student": …, "lesson": …, "points": …, "of": …, "gaps": [...]}]}
std::string grades_json(const std::vector<Grade>& grades);
// A row for each gap of each student, and one whose gap is "total".
std::string grades_csv(const std::vector<Grade>& grades);

}  // namespace focus::kit
