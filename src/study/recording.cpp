#include "study/recording.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "error.h"
#include "files/atomic_file.h"
#include "files/csv.h"
#include "files/folder.h"
#include "study/check_recording.h"

namespace focus {

namespace {

constexpr size_t most_bytes = size_t{1} << 26;
constexpr const char* curves_columns =
    "variant,epoch,train_loss_low,train_loss,train_loss_high,train_accuracy_low,train_accuracy,"
    "train_accuracy_high,val_loss_low,val_loss,val_loss_high,val_accuracy_low,val_accuracy,"
    "val_accuracy_high";
constexpr const char* seeds_columns =
    "variant,seed,epochs_to_target,epochs,train_loss,train_accuracy,val_loss,val_accuracy,"
    "best_val_accuracy,best_epoch,val_accuracy_10,val_accuracy_25,val_accuracy_50";

std::string number(double value, int digits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*g", digits, value);
  return text;
}
// Of a median, and of one seed.
std::string coarse(double value) {
  return number(value, 4);
}
std::string fine(double value) {
  return number(value, 6);
}

std::string notes_text(const Notes& notes) {
  std::string text;
  for (const auto& [key, value] : notes) text += str("# ", key, ": ", value, "\n");
  return text;
}

// Rows of a file with a known header; '#' lines go to `on_note`.
template <class OnNote, class OnRow>
void read_rows(const std::filesystem::path& file, std::string_view columns, const OnNote& on_note,
               const OnRow& on_row) {
  const std::string text = read_file(file, most_bytes);
  bool has_header = false;
  const size_t count = size_t(std::count(columns.begin(), columns.end(), ',')) + 1;
  for (CsvReader lines(text, file.string()); lines.next();) {
    const std::string where = str(file.string(), ", line ", lines.number()), line(lines.line());
    if (line.starts_with("# ")) {
      const size_t colon = line.find(": ");
      if (colon != std::string::npos)
        on_note(line.substr(2, colon - 2), line.substr(colon + 2), where);
    } else if (!has_header) {
      if (line != columns) lines.fail("the header is not '", columns, "'");
      has_header = true;
    } else {
      const std::vector<std::string_view>& parts = lines.cells();
      const std::vector<std::string> cells(parts.begin(), parts.end());
      if (cells.size() != count) lines.fail(cells.size(), " cells in place of ", count);
      on_row(cells, where);
    }
  }
  if (!has_header) fail_input(file.string(), ": has no header '", columns, "'");
}

double to_number(const std::string& cell, const std::string& where) {
  if (cell == "nan") return std::nan("");
  double value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc() || end != cell.data() + cell.size())
    fail_input(where, ": '", cell, "' is not a number");
  return value;
}

int to_epoch(const std::string& cell, const std::string& where) {
  int epoch = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), epoch);
  if (error != std::errc() || end != cell.data() + cell.size() || epoch < 1)
    fail_input(where, ": '", cell, "' is not an epoch");
  return epoch;
}

uint64_t to_seed(const std::string& cell, const std::string& where) {
  try {
    return uint64_t(parse_integer(cell));
  } catch (const InputError& error) {
    fail_input(where, ": ", error.what());
  }
}

RecordedVariant& variant_named(Recording& recording, const std::string& name,
                               const std::string& where) {
  for (RecordedVariant& v : recording.variants)
    if (v.name == name) return v;
  fail_input(where, ": no '# variant ", name, ": …' line before it in seeds.csv");
}

}  // namespace

Outcomes RecordedVariant::outcomes() const {
  Outcomes o{name, mechanism, {}, {}, {}, 0};
  for (const SeedOutcome& seed : seeds) {
    o.seeds.push_back(seed.seed);
    o.epochs.push_back(seed.epochs ? *seed.epochs : HUGE_VAL);
    o.val_accuracy.push_back(seed.last.epoch > 0 ? seed.last.val_accuracy : std::nan(""));
    o.longest = std::max(o.longest, seed.last.epoch);
  }
  return o;
}

const RecordedVariant* Recording::find(const std::string& name) const {
  for (const RecordedVariant& v : variants)
    if (v.name == name) return &v;
  return nullptr;
}

const RecordedVariant& Recording::at(const std::string& name) const {
  if (const RecordedVariant* v = find(name)) return *v;
  fail_input("'", name, "' is not among the recorded runs at the paper's scale: not run");
}

std::vector<int> recorded_epochs(int epochs) {
  std::vector<int> kept;
  constexpr int first = 10, most = 60;
  for (int e = 1; e <= std::min(epochs, epochs <= most ? most : first); ++e) kept.push_back(e);
  if (epochs <= most) return kept;
  for (int i = 1; i <= most - first; ++i) {
    const int e = first + int(int64_t{epochs - first} * i / (most - first));
    if (e > kept.back()) kept.push_back(e);
  }
  return kept;
}

// A recording may be made anew, and nothing else is overwritten.
static void check_no_other(const std::filesystem::path& file, std::string_view columns) {
  if (kind_of(file) != PathKind::missing &&
      read_file(file, most_bytes).find(columns) == std::string::npos)
    fail_input(file.string(), " is there already, and is no recording; choose another folder");
}

void write_recording(const Recording& recording, const std::filesystem::path& folder) {
  std::string seeds = notes_text(recording.notes), curves = seeds;
  for (const RecordedVariant& v : recording.variants)
    seeds += str("# variant ", v.name, ": target ", target_text(v.target), "; ",
                 settings_note(v.settings), "\n");
  for (const std::string& name : recording.not_run) seeds += str("# not run: ", name, "\n");
  seeds += str(seeds_columns, "\n");
  curves += str(curves_columns, "\n");
  for (const RecordedVariant& v : recording.variants) {
    for (const SeedOutcome& s : v.seeds) {
      seeds += str(v.name, ",", s.seed, ",", epochs_text(s.epochs), ",", s.last.epoch);
      for (const double value : {s.last.train_loss, s.last.train_accuracy, s.last.val_loss,
                                 s.last.val_accuracy, s.best_val_accuracy})
        seeds += "," + fine(value);
      seeds += str(",", s.best_epoch);
      for (const double value : s.val_accuracy_at) seeds += "," + fine(value);
      seeds += "\n";
    }
    for (size_t i = 0; i < v.epochs.size(); ++i) {
      curves += str(v.name, ",", v.epochs[i]);
      for (const auto& [metric, band] : recorded_metrics) {
        const Band& b = v.*band;
        curves += str(",", coarse(b.low[i]), ",", coarse(b.middle[i]), ",", coarse(b.high[i]));
      }
      curves += "\n";
    }
  }
  const std::filesystem::path seeds_file = folder / "seeds.csv",
                              curves_file = folder / "curves.csv";
  check_no_other(seeds_file, seeds_columns);
  check_no_other(curves_file, curves_columns);
  std::filesystem::create_directories(folder);
  write_file_atomically(seeds_file, seeds);
  write_file_atomically(curves_file, curves);
}

Recording read_recording(const std::filesystem::path& folder) {
  Recording recording;
  const auto on_note = [&](const std::string& key, const std::string& value,
                           const std::string& where) {
    if (key == "not run") {
      recording.not_run.push_back(value);
    } else if (key.starts_with("variant ")) {
      const size_t end = value.find("; ");
      if (!value.starts_with("target ") || end == std::string::npos)
        fail_input(where, ": the variant's line is not 'target T; settings'");
      RecordedVariant v;
      v.name = key.substr(8);
      const size_t blank = std::min(v.name.find(' '), v.name.size());
      v.mechanism = v.name.substr(0, blank);
      v.rest = blank < v.name.size() ? v.name.substr(blank + 1) : "";
      v.target = parse_target(value.substr(7, end - 7));
      v.settings = settings_of_note(value.substr(end + 2), where);
      recording.variants.push_back(std::move(v));
    } else {
      recording.notes.emplace_back(key, value);
    }
  };
  read_rows(folder / "seeds.csv", seeds_columns, on_note,
            [&](const std::vector<std::string>& cells, const std::string& where) {
              const auto value = [&](size_t c) { return to_number(cells[c], where); };
              SeedOutcome s;
              s.seed = to_seed(cells[1], where);
              if (cells[2] != "none") s.epochs = to_epoch(cells[2], where);
              s.last = {
                  to_epoch(cells[3], where), s.seed, value(4), value(5), value(6), value(7), 0};
              s.best_val_accuracy = value(8);
              s.best_epoch = to_epoch(cells[9], where);
              for (size_t i = 0; i < s.val_accuracy_at.size(); ++i)
                s.val_accuracy_at[i] = value(10 + i);
              variant_named(recording, cells[0], where).seeds.push_back(s);
            });
  const auto ignore = [](const std::string&, const std::string&, const std::string&) {};
  read_rows(folder / "curves.csv", curves_columns, ignore,
            [&](const std::vector<std::string>& cells, const std::string& where) {
              RecordedVariant& v = variant_named(recording, cells[0], where);
              v.epochs.push_back(to_epoch(cells[1], where));
              size_t c = 2;
              for (const auto& [metric, band] : recorded_metrics) {
                (v.*band).low.push_back(to_number(cells[c++], where));
                (v.*band).middle.push_back(to_number(cells[c++], where));
                (v.*band).high.push_back(to_number(cells[c++], where));
              }
            });
  check_whole(recording, folder.string());
  for (const auto& [key, value] : recording.notes)
    if (const auto table = folder.parent_path().parent_path() / value;
        key == "table" && std::filesystem::exists(table))
      check_against(recording, read_study(table), folder.string());
  return recording;
}

Panel recorded_panel(const std::vector<const RecordedVariant*>& variants, Band RecordedVariant::*of,
                     const std::string& title, const std::string& y_label) {
  Panel panel{title, "epoch", y_label};
  for (const RecordedVariant* v : variants) {
    const Band& band = v->*of;
    panel.series.push_back({v->mechanism, std::vector<double>(v->epochs.begin(), v->epochs.end()),
                            band.middle, band.low, band.high});
  }
  return panel;
}

}  // namespace focus
