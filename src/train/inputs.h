// What a run's data files held when it began. The same name may stand for other data later: then
// the run must not go on as if nothing had happened.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "train/settings.h"

namespace focus {

struct DataRecord {
  int64_t rows = 0;
  int longest = 0;    // tokens of the longest row
  uint64_t hash = 0;  // of all tokens and labels, FNV-1a
  // Of a prepared text, 0 for a data file. Its rows are its tokens, its longest is its window.
  int vocabulary = 0;
  bool operator==(const DataRecord&) const = default;
};

// "rows=100 longest=12 hash=0123456789abcdef", as settings.json, study.txt and checkpoints hold it;
// of a text also " vocabulary=512".
// Reading throws InputError, which names `where`.
std::string record_text(const DataRecord& record);
DataRecord parse_record(const std::string& text, const std::string& where);

// What a file holds now, or a prepared text's folder. InputError for whatever is wrong with it.
DataRecord record_of_file(const Task& task, const std::string& file);

// InputError that names the file and both counts, unless they are equal. An empty text is the
// record of an older run, which had none: nothing to compare.
void check_same_data(const std::string& file, const std::string& recorded, const std::string& now);

// The same for the files of settings that were read from a folder. False if a record was missing;
// what the files hold now becomes it.
bool check_same_data(RunSettings& settings);

// Records by file, so that each is read once.
using DataRecords = std::map<std::string, DataRecord>;
void read_records(const RunSettings& settings, DataRecords& records);

// Puts the records of its files into the settings, and what follows from them: train-size and
// val-size are the files' rows, and the longest row to train on is the length, of generated
// held-out examples too. InputError when a setting of `given` (names of flags) says otherwise. Of a
// text, length is the window it was prepared for, unless it is given.
void take_sizes_of_files(RunSettings& settings, const DataRecords& records,
                         const std::set<std::string>& given);
// The same sizes from settings that have them already, with the same files.
void take_sizes_of_files(RunSettings& settings, const RunSettings& from);

}  // namespace focus
