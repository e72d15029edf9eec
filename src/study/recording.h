// A recording: what a study of many runs came to, small enough to be kept beside a lesson.
//
// results.csv has a line for each variant, seed and epoch; a study at the paper's scale has
// hundreds of thousands of them. A recording is a folder with two files, made from it:
//
//   curves.csv   variant, epoch, and of each loss and accuracy the lower quartile, the median and
//   the
//                upper quartile over the seeds; of long runs some epochs only (recorded_epochs)
//   seeds.csv    a line for each variant and seed: epochs to the target, the values after the last
//                epoch, the best held-out accuracy, and the held-out accuracy on the way there
//
// Its '#' lines say when, on what and with which settings, and which variants of the table have not
// been run ("not run: NAME").
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "report/statistics.h"
#include "study/results.h"
#include "study/summary.h"

namespace focus {

// Shares of a run's epochs, in percent, after which seeds.csv has the held-out accuracy.
inline constexpr std::array<int, 3> recorded_shares = {10, 25, 50};

struct SeedOutcome {
  uint64_t seed = 0;
  std::optional<int> epochs;  // to the target
  EpochMetrics last;          // after the last epoch, whose number it has
  double best_val_accuracy = 0;
  int best_epoch = 0;  // the first with it
  std::array<double, recorded_shares.size()> val_accuracy_at = {};
};

struct RecordedVariant {
  std::string name, mechanism, rest;
  Target target;
  RunSettings settings;
  std::vector<SeedOutcome> seeds;
  std::vector<int> epochs;  // of the points of the curves below
  Band train_loss = {}, train_accuracy = {}, val_loss = {}, val_accuracy = {};

  Outcomes outcomes() const;
  // One number of each seed.
  template <class F>
  std::vector<double> values(const F& of) const {
    std::vector<double> all;
    for (const SeedOutcome& seed : seeds) all.push_back(of(seed));
    return all;
  }
};

// Each metric with the band that holds its quartiles.
struct RecordedMetric {
  double EpochMetrics::*metric;
  Band RecordedVariant::*band;
};
inline constexpr RecordedMetric recorded_metrics[] = {
    {&EpochMetrics::train_loss, &RecordedVariant::train_loss},
    {&EpochMetrics::train_accuracy, &RecordedVariant::train_accuracy},
    {&EpochMetrics::val_loss, &RecordedVariant::val_loss},
    {&EpochMetrics::val_accuracy, &RecordedVariant::val_accuracy}};

struct Recording {
  Notes notes;  // the '#' lines that are not about a variant
  std::vector<RecordedVariant> variants;
  std::vector<std::string> not_run;  // the table's variants that are missing

  const RecordedVariant* find(const std::string& name) const;  // nullptr: not run
  const RecordedVariant& at(const std::string& name) const;    // InputError: not run
};

// The epochs of curves.csv: all of the first ten, then as many as make sixty, evenly, and the last.
std::vector<int> recorded_epochs(int epochs);

void write_recording(const Recording& recording, const std::filesystem::path& folder);
// InputError with file and line, and for what is not whole: a seed that is missing or there twice,
// epochs without a curve, a number that is none; or of other settings than the table's, if this
// lies where a lesson has it, in LESSON/TABLE with LESSON/results/NAME for the folder.
Recording read_recording(const std::filesystem::path& folder);

// One line a variant: the median with the quartile band, of the variants given.
Panel recorded_panel(const std::vector<const RecordedVariant*>& variants, Band RecordedVariant::*of,
                     const std::string& title, const std::string& y_label);

}  // namespace focus
