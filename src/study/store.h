// The folder of a study:
//
//   DIR/study.csv                  the table
//   DIR/study.txt                  who made the results, of what (provenance.h)
//   DIR/runs/NAME/                 a folder for each run (names.h, train/store.h)
//   DIR/results.csv, summary.csv   when all runs are over
//
// Files are replaced whole, so a kill at any moment leaves a folder that can be gone on with.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "files/folder.h"
#include "files/metrics.h"
#include "study/provenance.h"
#include "study/results.h"
#include "study/study.h"
#include "train/store.h"

namespace focus {

// One run's folder as it is found.
struct RunState {
  bool over = false;                    // nothing is left to do
  std::string failure = {};             // why it ended early; empty: it did not
  bool has_checkpoint = false;          // it can go on from there
  std::vector<EpochMetrics> rows = {};  // at most the epochs that the study asks for
};

class StudyStore {
 public:
  explicit StudyStore(std::filesystem::path folder) : folder_(std::move(folder)) {}
  const std::filesystem::path& folder() const { return folder_; }

  bool exists() const;
  // Checks that the folder is new, empty, or holds this study's results, all of its runs described
  // by `study` and made by the same program. Writes nothing.
  void check(const Study& study, const Provenance& mine) const;
  // After check(): writes study.csv and study.txt.
  void begin(const Study& study, const Provenance& mine, FolderLock& lock);

  Study study() const;            // of study.csv
  Provenance provenance() const;  // of study.txt

  // InputError for a damaged folder: which file, and what to do.
  RunState state(const Study& study, const StudyRun& run) const;
  std::shared_ptr<RunFolder> folder(const Study& study, const StudyRun& run) const;
  // Takes a run that is over from another folder of the same study.
  void copy_run(const Study& study, const StudyRun& run, const StudyStore& from) const;

  // results.csv and summary.csv.
  void write_results(const Study& study, const StudyResults& results) const;

 private:
  TrainPlan plan_of(const Study& study, const StudyRun& run) const;

  std::filesystem::path folder_;
};

}  // namespace focus
