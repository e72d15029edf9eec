// Grading: points for each gap of a submission, by the tests of this checkout.
//
// A submission is a student's tree. Only its files that hold gaps are looked at; tests, Makefile
// and all else are ours. First they are put together into our tree and tested. If that fails, each
// gap is tested alone: the student's code there, our solutions in the others.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "manifest.h"
#include "sandbox.h"

namespace focus::kit {

struct GapGrade {
  std::string gap, result;  // "passes", "empty", "does not compile: …", "2 of 15 tests fail: …"
  int points = 0, of = 0;
};

struct Grade {
  std::string submission, lesson, problem;  // problem: why nothing could be graded
  std::vector<GapGrade> gaps;
  int points() const;
  int of() const;
};

struct GradeOptions {
  std::string lesson;  // for submissions that have lost their lesson.txt
  Limits build{.seconds = 300,
               .memory_mb = 4096,
               .file_mb = 256,
               .output_mb = 8,
               .may_start_programs = true,
               .writable = {}};
  Limits test{.seconds = 60,
              .memory_mb = 2048,
              .file_mb = 16,
              .output_mb = 8,
              .may_start_programs = false,
              .writable = {}};
  std::filesystem::path work = "build/grade";  // our trees and their builds
};

Grade grade_submission(const Manifest& manifest, const std::filesystem::path& submission,
                       const GradeOptions& options);

// The submissions in `folder`: itself if it is one, else its subfolders, ascending.
std::vector<std::filesystem::path> find_submissions(const std::filesystem::path& folder);

std::string grade_table(const Grade& grade);
// {"graded": [{"submission": …, "lesson": …, "points": …, "of": …, "gaps": [...]}]}
std::string grades_json(const std::vector<Grade>& grades);

}  // namespace focus::kit
