// lessons/manifest.json: the one list of lessons. The Makefile, the README's table, the student's
// trees, hints, progress and grading follow it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "gaps.h"

namespace focus::kit {

struct Lesson {
  std::string number, folder, title, builds, finding, claim, measured;
  std::string paper_scale;  // measured there, or "not run" and why; empty: no question
  int minutes = 0;          // of a student's time, reading and exercises aside
  std::vector<std::string> prerequisites;  // numbers
  std::vector<std::string> files;  // what exists from this lesson on; "src/ops/" is a folder
};

struct Manifest {
  std::filesystem::path root;
  std::vector<Lesson> lessons;

  const Lesson& lesson(const std::string& number) const;  // unknown: InputError that lists them
};

// InputError names the file and the field.
Manifest read_manifest(const std::filesystem::path& root);

// The files of the tree after `lesson`, ascending: those that the manifest gives to it or to an
// earlier lesson (the longest entry that fits a path decides), with the lessons' own folders and
// stage tests.
std::vector<std::string> files_at(const Manifest& manifest, const std::string& lesson);

// The gaps of a lesson in the order in which to fill them: files of earlier lessons first, then the
// lesson's own as the manifest lists them, then by line.
std::vector<Gap> gaps_of_lesson(const Manifest& manifest, const std::string& lesson);

// All files of src and cuda, ascending.
std::vector<std::string> source_files(const Manifest& manifest);

std::vector<Gap> all_gaps(const Manifest& manifest);

// What is wrong with the project's gaps beyond what reading a file tells: two of one name, a page
// without its gap, two mistakes of one name, mistakes that do not fit the code. A line each.
std::vector<std::string> gap_problems(const Manifest& manifest);

}  // namespace focus::kit
