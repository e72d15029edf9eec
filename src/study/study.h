// A study: which runs a table describes.
//
// A column is a setting, under the name of its flag ('focus train --help'), or one of
//   seeds   how many runs: the first of the paper's ten, or with `seed` S, S+1, …   (default 3)
//   seed    the first seed; several values are the seeds themselves
//   target  when a run counts as having learnt: '95%' of the training set right (the default), or
//           a number, the training loss it must come down to
// An empty cell, and a column that is not there, means the task's default. A cell with several
// values stands for all of them; a row with several such cells for every combination.
#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "train/inputs.h"
#include "train/settings.h"

namespace focus {

// When a run has learnt its task.
struct Target {
  bool is_accuracy = true;  // at least `value` percent of the training set, else a training loss
  double value = 95;        // of at most `value` nats
};
std::string target_text(const Target& target);         // "95%", "1.9"
Target parse_target(const std::string& text);          // InputError
std::string target_description(const Target& target);  // "95 % training accuracy"

struct StudyVariant {
  // What distinguishes it in this table: the mechanism, as "topk(5)", and the rest, as "heads=2
  // gelu" (empty if the variants differ in the mechanism only). The name is both.
  std::string name, mechanism, rest;
  RunSettings settings;
  std::vector<uint64_t> seeds;
  Target target;
  int line = 0;                      // of the table
  std::set<std::string> given = {};  // settings that the line names
};

struct StudyRun {
  size_t variant = 0;
  size_t seed_index = 0;
  uint64_t seed = 0;
  std::string folder;  // name: readable, with a hash of all settings but epochs
};

struct Study {
  std::string name, text;  // of the file
  std::vector<StudyVariant> variants;
  std::vector<StudyRun> runs;  // by variant, then seed
};

// InputError names line and column: an unknown column or value, a value out of range, settings that
// do not go together, two rows that describe the same run. (Two runs that differ in their epochs
// only are the same run: the shorter one is the beginning of the longer.)
Study parse_study(std::string_view text, const std::string& name);
Study read_study(const std::filesystem::path& file);

// What the study's data files hold, as records: into the settings of its variants, with what
// follows from them (train/inputs.h). InputError with the line for a setting that says otherwise.
// Names of variants and folders of runs remain.
void take_sizes_of_files(Study& study, const DataRecords& records);

// The same study with the first `count` of the paper's seeds in place of its own.
Study with_seeds(const Study& study, int count);

// Runs that the table describes, at most.
inline constexpr size_t most_runs = 100'000;

}  // namespace focus
