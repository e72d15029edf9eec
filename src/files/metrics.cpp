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

// One line, cut at its commas.
struct Line {
  const std::string& file;
  int number;  // the header is line 1
  std::vector<std::string> fields;

  template <class... Args>
  [[noreturn]] void fail(const Args&... args) const {
    fail_input(file, ", line ", number, ": ", args...);
  }

  template <class Integer>
  Integer whole(size_t column, const char* what, Integer lo) const {
    const std::string& text = fields[column];
    Integer value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < lo) {
      fail(what, " '", text.substr(0, 40), "' must be a whole number from ", lo);
    }
    return value;
  }

  double number_in(size_t column, const char* what, double hi, bool may_be_missing = false) const {
    const std::string& text = fields[column];
    if (may_be_missing && text == "nan") return std::nan("");
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    const bool is_number = !text.empty() && end == text.c_str() + text.size();
    if (!is_number || !(value >= 0 && value <= hi) || std::isinf(value)) {
      fail(what, " '", text.substr(0, 40), "' must be a finite number from 0",
           hi < infinity ? str(" to ", hi) : "");
    }
    return value;
  }
};

EpochMetrics parse_line(const Line& line) {
  if (line.fields.size() != 7) {
    line.fail(line.fields.size(), " columns, but 7 are needed: ", header);
  }
  EpochMetrics row;
  row.epoch = line.whole<int>(0, "epoch", 1);
  row.seed = line.whole<uint64_t>(1, "seed", 0);
  row.train_loss = line.number_in(2, "train_loss", infinity);
  row.train_accuracy = line.number_in(3, "train_accuracy", 100);
  row.val_loss = line.number_in(4, "val_loss", infinity, true);
  row.val_accuracy = line.number_in(5, "val_accuracy", 100, true);
  row.seconds = line.number_in(6, "seconds", infinity);
  return row;
}

}  // namespace

std::string metrics_text(const std::vector<EpochMetrics>& rows) {
  std::string text = std::string(header) + "\n";
  for (const EpochMetrics& row : rows) {
    text += std::to_string(row.epoch) + "," + std::to_string(row.seed);
    append_number(text, ",%.9g", row.train_loss);
    append_number(text, ",%.4f", row.train_accuracy);
    append_number(text, ",%.9g", row.val_loss);
    append_number(text, ",%.4f", row.val_accuracy);
    append_number(text, ",%.3f", row.seconds);
    text += "\n";
  }
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
  for (int number = 1; number == 1 || !text.empty(); ++number) {
    const size_t length = std::min(text.find('\n'), text.size());
    std::string_view content = text.substr(0, length);
    text.remove_prefix(std::min(length + 1, text.size()));
    if (content.ends_with('\r')) content.remove_suffix(1);
    if (number == 1) {
      if (content != header) {
        fail_input(name, ", line 1: the header is not '", header, "'; is it a metrics.csv?");
      }
      continue;
    }
    Line line{name, number, {""}};
    for (const char c : content) {
      if (c == ',') {
        line.fields.emplace_back();
      } else {
        line.fields.back() += c;
      }
    }
    const EpochMetrics row = parse_line(line);
    if (!rows.emplace(std::pair(row.epoch, row.seed), row).second) {
      line.fail("epoch ", row.epoch, " of seed ", row.seed, " is there a second time; remove one");
    }
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
