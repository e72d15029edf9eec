// metrics.csv: one line per epoch and seed, sorted by epoch, then seed; epochs count from 1.
//
//   epoch,seed,train_loss,train_accuracy,val_loss,val_accuracy,seconds
//
// Losses are mean cross-entropies in nats, accuracies percentages, seconds the time since the run
// began. The number of digits is fixed (9 significant, 4 and 3 decimals), so that equal numbers
// give equal bytes, and a file that is read and written again does not change.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "files/csv.h"

namespace focus {

struct EpochMetrics {
  int epoch = 0;
  uint64_t seed = 0;
  double train_loss = 0, train_accuracy = 0;
  double val_loss = 0, val_accuracy = 0;  // NaN (printed "nan") without held-out data
  double seconds = 0;
};

// The text of a metrics.csv with these rows, in the order given.
std::string metrics_text(const std::vector<EpochMetrics>& rows);

// One line, and the opposite; results.csv has them without the seconds. `line` names itself in
// messages.
std::string metrics_row_text(const EpochMetrics& row, bool has_seconds);
EpochMetrics parse_metrics_row(const CsvReader& line, std::span<const std::string_view> cells,
                               bool has_seconds);

// The row with the numbers that a file holds of it: what is in memory and what is read later are
// the same.
EpochMetrics as_written(EpochMetrics row);

// The rows of a metrics.csv, sorted. `name` stands for the file in messages. Throws InputError with
// the line (the header is line 1) for a wrong header, a wrong column count, text that is no number,
// a number out of its range, and an epoch and seed that occur twice.
std::vector<EpochMetrics> parse_metrics(std::string_view text, const std::string& name);

std::vector<EpochMetrics> read_metrics(const std::filesystem::path& path);

// The metrics of a run in progress: rows in memory, and a file that always holds all of them.
// Several seeds may report from several threads.
class MetricsFile {
 public:
  // Touches no file.
  explicit MetricsFile(std::filesystem::path path) : path_(std::move(path)) {}

  // To continue a run: reads the rows of the file at `path`, which must exist.
  void load();

  // Removes the rows of one seed after an epoch, which a resumed run makes again. The file changes
  // at the next write.
  void drop_after(uint64_t seed, int epoch);

  // Adds a row, in place of one with the same epoch and seed, and writes the file (atomically).
  void add(const EpochMetrics& row);
  void add(std::span<const EpochMetrics> rows);  // in one write

  void write() const;

  // Sorted by epoch, then seed.
  std::vector<EpochMetrics> rows() const;

 private:
  void write_locked() const;

  const std::filesystem::path path_;
  mutable std::mutex mutex_;                               // guards rows_ and the order of writes
  std::map<std::pair<int, uint64_t>, EpochMetrics> rows_;  // by epoch and seed
};

}  // namespace focus
