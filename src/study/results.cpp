#include "study/results.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include "error.h"
#include "files/atomic_file.h"

namespace focus {

namespace {

constexpr size_t most_bytes = size_t{1} << 30;

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t length = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, length));
    if (lines.back().ends_with('\r')) lines.back().remove_suffix(1);
    text.remove_prefix(std::min(length + 1, text.size()));
  }
  return lines;
}

// What follows "# "; empty for "#".
std::string_view note_of(std::string_view line) {
  line.remove_prefix(1);
  while (line.starts_with(' ')) line.remove_prefix(1);
  return line;
}

class Reader {
 public:
  explicit Reader(const std::string& name) : name_(name) {}

  StudyResults read(std::string_view text) {
    bool has_header = false;
    for (const std::string_view line : lines_of(text)) {
      ++number_;
      if (line.starts_with('#')) {
        read_note(note_of(line));
      } else if (!has_header) {
        if (line != results_columns)
          fail("the header is not '", results_columns, "'; is it a study's results.csv?");
        has_header = true;
      } else {
        read_row(line);
      }
    }
    if (!has_header) fail_input(name_, ": has no header; is it a study's results.csv?");
    return std::move(results_);
  }

 private:
  template <class... Args>
  [[noreturn]] void fail(const Args&... args) const {
    fail_input(name_, ", line ", number_, ": ", args...);
  }

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
      fail("the variant's note is not 'target T; seeds S …; settings'");
    variant.settings_note = value.substr(seeds_end + 2);
    try {
      variant.target = parse_target(value.substr(7, target_end - 7));
      std::istringstream seeds(value.substr(target_end + 8, seeds_end - target_end - 8));
      for (std::string seed; seeds >> seed;) curve_of(variant, uint64_t(parse_integer(seed)));
    } catch (const InputError& error) {
      fail(error.what());
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

  // The columns after the variant are those of metrics.csv, which reads them, without the last.
  void read_row(std::string_view line) {
    const size_t comma = line.find(',');
    if (comma == std::string_view::npos || comma == 0) fail("no variant's name before a comma");
    StudiedVariant& variant = variant_named(std::string(line.substr(0, comma)));
    const EpochMetrics row = parse_metrics_row(line.substr(comma + 1));
    std::vector<EpochMetrics>& curve = curve_of(variant, row.seed);
    if (row.epoch != int(curve.size()) + 1)
      fail("epoch ", row.epoch, " of ", variant.name, ", seed ", row.seed, ", where epoch ",
           curve.size() + 1, " should be");
    curve.push_back(row);
  }

  EpochMetrics parse_metrics_row(std::string_view cells) const {
    try {
      return parse_metrics(str(metrics_text({}), cells, ",0"), "").at(0);
    } catch (const InputError& error) {  // ", line 2: …"
      const std::string_view message = error.what();
      fail(message.substr(message.find(": ") + 2));
    }
  }

  const std::string& name_;
  int number_ = 0;
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
    if (!value.empty() && field.in_files(settings))
      text += str(text.empty() ? "" : " ", field.name, "=", value);
  }
  return text;
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
    for (const std::vector<EpochMetrics>& curve : v.curves) {
      std::string lines = metrics_text(curve);
      lines.erase(0, lines.find('\n') + 1);
      for (const std::string_view line : lines_of(lines))
        text += str(v.name, ",", line.substr(0, line.rfind(',')), "\n");  // without the seconds
    }
  return text;
}

StudyResults parse_results(std::string_view text, const std::string& name) {
  return Reader(name).read(text);
}

StudyResults read_results(const std::filesystem::path& file) {
  return parse_results(read_file(file, most_bytes), file.string());
}

}  // namespace focus
