#include "study/results.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include "error.h"
#include "files/atomic_file.h"

namespace focus {

namespace {

constexpr size_t most_bytes = size_t{1} << 30;

// What follows "# "; empty for "#".
std::string_view note_of(std::string_view line) {
  line.remove_prefix(1);
  while (line.starts_with(' ')) line.remove_prefix(1);
  return line;
}

class Reader {
 public:
  Reader(std::string_view text, const std::string& name) : lines_(text, name), name_(name) {}

  StudyResults read() {
    bool has_header = false;
    while (lines_.next()) {
      if (lines_.line().starts_with('#')) {
        read_note(note_of(lines_.line()));
      } else if (has_header) {
        read_row();
      } else if (lines_.line() == results_columns) {
        has_header = true;
      } else {
        lines_.fail("the header is not '", results_columns, "'; is it a study's results.csv?");
      }
    }
    if (!has_header) fail_input(name_, ": has no header; is it a study's results.csv?");
    return std::move(results_);
  }

 private:
  void read_note(std::string_view note) {
    const size_t colon = note.find(": ");
    if (colon == std::string_view::npos) return;  // any other comment
    const std::string key(note.substr(0, colon)), value(note.substr(colon + 2));
    if (!key.starts_with("variant ")) {
      results_.notes.emplace_back(key, value);
      return;
    }
    StudiedVariant& variant = variant_named(key.substr(8));
    const size_t target_end = value.find("; seeds "), seeds_end = value.find("; ", target_end + 1);
    if (!value.starts_with("target ") || seeds_end == std::string::npos)
      lines_.fail("the variant's note is not 'target T; seeds S …; settings'");
    variant.settings_note = value.substr(seeds_end + 2);
    try {
      variant.target = parse_target(value.substr(7, target_end - 7));
      std::istringstream seeds(value.substr(target_end + 8, seeds_end - target_end - 8));
      for (std::string seed; seeds >> seed;) curve_of(variant, uint64_t(parse_integer(seed)));
    } catch (const InputError& error) {
      lines_.fail(error.what());
    }
  }

  StudiedVariant& variant_named(const std::string& name) {
    for (StudiedVariant& variant : results_.variants)
      if (variant.name == name) return variant;
    const size_t blank = std::min(name.find(' '), name.size());
    const std::string rest = blank < name.size() ? name.substr(blank + 1) : "";
    results_.variants.push_back({name, name.substr(0, blank), rest, {}, {}, {}, {}});
    return results_.variants.back();
  }

  static std::vector<EpochMetrics>& curve_of(StudiedVariant& variant, uint64_t seed) {
    const auto found = std::find(variant.seeds.begin(), variant.seeds.end(), seed);
    const size_t s = size_t(found - variant.seeds.begin());
    if (found == variant.seeds.end()) {
      variant.seeds.push_back(seed);
      variant.curves.emplace_back();
    }
    return variant.curves[s];
  }

  // The columns after the variant are those of metrics.csv, without the last.
  void read_row() {
    const std::span<const std::string_view> cells = lines_.cells();
    if (cells.size() < 2 || cells[0].empty()) lines_.fail("no variant's name before a comma");
    if (cells.size() != 7)
      lines_.fail(cells.size(), " columns, but 7 are needed: ", results_columns);
    StudiedVariant& variant = variant_named(std::string(cells[0]));
    const EpochMetrics row = parse_metrics_row(lines_, cells.subspan(1), false);
    std::vector<EpochMetrics>& curve = curve_of(variant, row.seed);
    if (row.epoch != int(curve.size()) + 1)
      lines_.fail("epoch ", row.epoch, " of ", variant.name, ", seed ", row.seed, ", where epoch ",
                  curve.size() + 1, " should be");
    curve.push_back(row);
  }

  CsvReader lines_;
  const std::string& name_;
  StudyResults results_;
};

}  // namespace

const StudiedVariant& StudyResults::variant(const std::string& name) const {
  for (const StudiedVariant& v : variants)
    if (v.name == name) return v;
  throw std::logic_error("a study has no variant " + name);
}

std::vector<VariantResult> StudyResults::with_rest(const std::string& rest) const {
  std::vector<VariantResult> results;
  for (const StudiedVariant& v : variants)
    if (v.rest == rest) results.push_back({v.mechanism, v.curves});
  return results;
}

std::vector<std::string> StudyResults::rests() const {
  std::vector<std::string> all;
  for (const StudiedVariant& v : variants)
    if (std::find(all.begin(), all.end(), v.rest) == all.end()) all.push_back(v.rest);
  return all;
}

std::vector<StudiedVariant> empty_variants(const Study& study) {
  std::vector<StudiedVariant> variants;
  for (const StudyVariant& v : study.variants)
    variants.push_back({v.name, v.mechanism, v.rest, v.target, v.seeds,
                        std::vector<std::vector<EpochMetrics>>(v.seeds.size())});
  return variants;
}

std::string settings_note(const RunSettings& settings) {
  std::string text;
  for (const SettingField& field : setting_fields()) {
    const std::string value = field.get(settings);
    if (!value.empty() && field.is_flag && field.in_files(settings))
      text += str(text.empty() ? "" : " ", field.name, "=", value);
  }
  return text;
}

RunSettings settings_of_note(const std::string& note, const std::string& where) {
  TextMap text;
  for (const SettingField& field : setting_fields())
    if (field.get(RunSettings{}).empty()) text[field.name] = "";
  std::string key;
  std::istringstream words(note);
  for (std::string word; std::getline(words, word, ' ');) {
    const std::string name = word.substr(0, word.find('='));
    const bool is_setting = std::ranges::any_of(
        setting_fields(), [&](const SettingField& field) { return name == field.name; });
    if (is_setting && name.size() < word.size())
      text[key = name] = word.substr(name.size() + 1);
    else if (key.ends_with("-data"))  // a file's name may hold blanks
      text[key] += " " + word;
    else
      fail_input(where, ": '", word, "' is no setting=value");
  }
  return settings_from_text(text, where);
}

std::string results_text(const Study& study, const Notes& notes,
                         const std::vector<StudiedVariant>& variants) {
  std::string text;
  for (const auto& [key, value] : notes) text += str("# ", key, ": ", value, "\n");
  for (const StudyVariant& v : study.variants) {
    text += str("# variant ", v.name, ": target ", target_text(v.target), "; seeds");
    for (const uint64_t seed : v.seeds) text += str(" ", seed);
    text += str("; ", settings_note(v.settings), "\n");
  }
  text += str(results_columns, "\n");
  for (const StudiedVariant& v : variants)
    for (const std::vector<EpochMetrics>& curve : v.curves)
      for (const EpochMetrics& row : curve) text += v.name + "," + metrics_row_text(row, false);
  return text;
}

StudyResults parse_results(std::string_view text, const std::string& name) {
  return Reader(text, name).read();
}

StudyResults read_results(const std::filesystem::path& file) {
  return parse_results(read_file(file, most_bytes), file.string());
}

}  // namespace focus
