#include "files/metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <set>

#include "error.h"
#include "files/atomic_file.h"

namespace focus {
namespace {

constexpr std::string_view header =
    "epoch,seed,train_loss,train_accuracy,val_loss,val_accuracy,seconds";
constexpr size_t max_file_bytes = size_t{1} << 30;
constexpr double infinity = std::numeric_limits<double>::infinity();

void append_number(std::string& text, const char* format, double value) {
  char digits[400];
  std::snprintf(digits, sizeof digits, format, value);
  // The sign of a NaN means nothing, and some machines print it.
  text += std::isnan(value) ? ",nan" : digits;
}

template <class Integer>
Integer whole(const CsvReader& line, std::string_view text, const char* what, Integer lo) {
  Integer value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < lo)
    line.fail(what, " '", text.substr(0, 40), "' must be a whole number from ", lo);
  return value;
}

double number_in(const CsvReader& line, std::string_view cell, const char* what, double hi,
                 bool may_be_missing = false) {
  if (may_be_missing && cell == "nan") return std::nan("");
  const std::string text(cell);
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  const bool is_number = !text.empty() && end == text.c_str() + text.size();
  if (!is_number || !(value >= 0 && value <= hi) || std::isinf(value))
    line.fail(what, " '", text.substr(0, 40), "' must be a finite number from 0",
              hi < infinity ? str(" to ", hi) : "");
  return value;
}

}  // namespace

EpochMetrics parse_metrics_row(const CsvReader& line, std::span<const std::string_view> cells,
                               bool has_seconds) {
  const size_t columns = has_seconds ? 7 : 6;
  if (cells.size() != columns)
    line.fail(cells.size(), " columns, but ", columns,
              " are needed: ", has_seconds ? header : header.substr(0, header.rfind(',')));
  EpochMetrics row;
  row.epoch = whole<int>(line, cells[0], "epoch", 1);
  row.seed = whole<uint64_t>(line, cells[1], "seed", 0);
  row.train_loss = number_in(line, cells[2], "train_loss", infinity);
  row.train_accuracy = number_in(line, cells[3], "train_accuracy", 100);
  row.val_loss = number_in(line, cells[4], "val_loss", infinity, true);
  row.val_accuracy = number_in(line, cells[5], "val_accuracy", 100, true);
  if (has_seconds) row.seconds = number_in(line, cells[6], "seconds", infinity);
  return row;
}

std::string metrics_row_text(const EpochMetrics& row, bool has_seconds) {
  std::string text = std::to_string(row.epoch) + "," + std::to_string(row.seed);
  append_number(text, ",%.9g", row.train_loss);
  append_number(text, ",%.4f", row.train_accuracy);
  append_number(text, ",%.9g", row.val_loss);
  append_number(text, ",%.4f", row.val_accuracy);
  if (has_seconds) append_number(text, ",%.3f", row.seconds);
  return text + "\n";
}

std::string metrics_text(const std::vector<EpochMetrics>& rows) {
  std::string text = std::string(header) + "\n";
  for (const EpochMetrics& row : rows) text += metrics_row_text(row, true);
  return text;
}

EpochMetrics as_written(EpochMetrics row) {
  const auto round = [](const char* format, double& value) {
    std::string text;
    append_number(text, format, value);
    value = std::strtod(text.c_str() + 1, nullptr);
  };
  for (double* loss : {&row.train_loss, &row.val_loss}) round(",%.9g", *loss);
  for (double* accuracy : {&row.train_accuracy, &row.val_accuracy}) round(",%.4f", *accuracy);
  round(",%.3f", row.seconds);
  return row;
}

std::vector<EpochMetrics> parse_metrics(std::string_view text, const std::string& name) {
  std::map<std::pair<int, uint64_t>, EpochMetrics> rows;
  CsvReader lines(text, name);
  if (!lines.next() || lines.line() != header)
    fail_input(name, ", line 1: the header is not '", header, "'; is it a metrics.csv?");
  while (lines.next()) {
    const EpochMetrics row = parse_metrics_row(lines, lines.cells(), true);
    if (!rows.emplace(std::pair(row.epoch, row.seed), row).second)
      lines.fail("epoch ", row.epoch, " of seed ", row.seed, " is there a second time; remove one");
  }
  std::vector<EpochMetrics> sorted;
  for (const auto& [key, row] : rows) sorted.push_back(row);
  return sorted;
}

std::vector<EpochMetrics> read_metrics(const std::filesystem::path& path) {
  return parse_metrics(read_file(path, max_file_bytes), path.string());
}

void MetricsFile::load() {
  const std::vector<EpochMetrics> loaded = read_metrics(path_);
  const std::lock_guard lock(mutex_);
  rows_.clear();
  for (const EpochMetrics& row : loaded) rows_[{row.epoch, row.seed}] = row;
}

void MetricsFile::drop_after(uint64_t seed, int epoch) {
  const std::lock_guard lock(mutex_);
  std::erase_if(rows_, [&](const auto& entry) {
    return entry.first.second == seed && entry.first.first > epoch;
  });
}

void MetricsFile::add(const EpochMetrics& row) {
  add(std::span(&row, 1));
}

void MetricsFile::add(std::span<const EpochMetrics> rows) {
  const std::lock_guard lock(mutex_);
  for (const EpochMetrics& row : rows) rows_[{row.epoch, row.seed}] = row;
  write_locked();
}

void MetricsFile::write() const {
  const std::lock_guard lock(mutex_);
  write_locked();
}

std::vector<EpochMetrics> MetricsFile::rows() const {
  const std::lock_guard lock(mutex_);
  std::vector<EpochMetrics> sorted;
  for (const auto& [key, row] : rows_) sorted.push_back(row);
  return sorted;
}

void MetricsFile::write_locked() const {
  std::vector<EpochMetrics> sorted;
  for (const auto& [key, row] : rows_) sorted.push_back(row);
  write_file_atomically(path_, metrics_text(sorted));
}

}  // namespace focus
