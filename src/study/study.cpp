#include "study/study.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <string_view>
#include <type_traits>

#include "files/atomic_file.h"
#include "study/names.h"
#include "study/table.h"
#include "suggest.h"

namespace focus {

namespace {

constexpr size_t most_bytes = 1 << 20;

const SettingField* find_field(std::string_view name) {
  for (const SettingField& field : setting_fields())
    if (field.is_flag && field.name == name) return &field;
  return nullptr;
}

void check_columns(const Table& table) {
  std::vector<std::string> known = {"seeds", "seed", "target"};
  for (const SettingField& field : setting_fields())
    if (field.is_flag) known.push_back(field.name);
  for (const std::string& column : table.columns) {
    if (std::find(known.begin(), known.end(), column) != known.end()) continue;
    const std::string near = nearest_name(column, known);
    table.fail(table.header_line, "unknown column '", column, "'",
               near.empty() ? "; 'focus train --help' names the settings"
                            : ": did you mean " + near + "?");
  }
}

// One row of the table, and what it says beside the settings.
class RowReader {
 public:
  RowReader(const Table& table, const TableRow& row) : table_(table), row_(row) {}

  // Every combination of the cells' values; the values of the last column change fastest.
  std::vector<RunSettings> settings() const {
    // Seeds and the target are no settings: they make no variants.
    size_t count = 1;
    for (size_t c = 0; c < row_.cells.size(); ++c) {
      if (!is_about_runs(c)) count *= std::max<size_t>(1, row_.cells[c].size());
      if (count > most_runs) table_.fail(row_.line, "describes more than ", most_runs, " runs");
    }
    std::vector<RunSettings> all;
    std::vector<const std::string*> chosen(row_.cells.size());
    for (size_t i = 0; i < count; ++i) {
      size_t rest = i;
      for (size_t c = row_.cells.size(); c-- > 0;) {
        const auto& values = row_.cells[c];
        if (is_about_runs(c) || values.empty()) continue;
        chosen[c] = &values[rest % values.size()];
        rest /= values.size();
      }
      all.push_back(combination(chosen));
    }
    return all;
  }

  std::vector<uint64_t> seeds() const {
    const std::vector<std::string>*count = cell("seeds"), *first = cell("seed");
    if (count && count->size() > 1)
      table_.fail_cell(row_.line, "seeds", "is one number, how many runs; list seeds under 'seed'");
    if (first && count && first->size() > 1)
      table_.fail_cell(row_.line, "seed", "with 'seeds' it is the first seed only");
    std::vector<uint64_t> seeds;
    if (first)
      for (const std::string& text : *first)
        seeds.push_back(uint64_t(whole("seed", text, 0, std::numeric_limits<int64_t>::max())));
    for (size_t i = 0; i < seeds.size(); ++i)
      if (std::find(seeds.begin(), seeds.begin() + ptrdiff_t(i), seeds[i]) !=
          seeds.begin() + ptrdiff_t(i))
        table_.fail_cell(row_.line, "seed", seeds[i], " is there a second time");
    if (first && !count) return seeds;
    const int n = count ? int(whole("seeds", count->front(), 1, 1000)) : 3;
    if (first && seeds[0] > uint64_t(std::numeric_limits<int64_t>::max() - n))
      table_.fail_cell(row_.line, "seed", "the seeds leave the range of seeds");
    try {
      return choose_seeds(n, first ? seeds.data() : nullptr);
    } catch (const InputError&) {
      table_.fail_cell(row_.line, "seeds", "the paper has only ", paper_seeds().size(),
                       " seeds; give the first one under 'seed' to use S, S+1, …");
    }
  }

  // The settings that the row names.
  std::set<std::string> given() const {
    std::set<std::string> names;
    for (size_t c = 0; c < row_.cells.size(); ++c)
      if (!row_.cells[c].empty()) names.insert(table_.columns[c]);
    return names;
  }

  Target target() const {
    const std::vector<std::string>* values = cell("target");
    if (!values) return {};
    if (values->size() > 1) table_.fail_cell(row_.line, "target", "one value is needed");
    return in_cell("target", [&] { return parse_target(values->front()); });
  }

 private:
  // Does it, and names line and column in what it complains about.
  template <class F>
  std::invoke_result_t<F> in_cell(std::string_view column, const F& f) const {
    try {
      return f();
    } catch (const InputError& error) {
      table_.fail_cell(row_.line, column, error.what());
    }
  }

  bool is_about_runs(size_t column) const { return !find_field(table_.columns[column]); }

  const std::vector<std::string>* cell(std::string_view column) const {
    for (size_t c = 0; c < table_.columns.size(); ++c)
      if (table_.columns[c] == column && !row_.cells[c].empty()) return &row_.cells[c];
    return nullptr;
  }

  int64_t whole(const char* column, const std::string& text, int64_t low, int64_t high) const {
    const int64_t value = in_cell(column, [&] { return parse_integer(text); });
    if (value < low || value > high)
      table_.fail_cell(row_.line, column, value, " is not between ", low, " and ", high);
    return value;
  }

  RunSettings combination(const std::vector<const std::string*>& chosen) const {
    RunSettings s;
    const auto set = [&](size_t c, const std::string& text) {
      const SettingField* field = find_field(table_.columns[c]);
      in_cell(field->name, [&] { field->set(s, text); });
    };
    for (size_t c = 0; c < chosen.size(); ++c)
      if (chosen[c] && table_.columns[c] == "task") set(c, *chosen[c]);
    s = RunSettings::defaults_for(find_task(s.task));
    for (size_t c = 0; c < chosen.size(); ++c)
      if (chosen[c]) set(c, *chosen[c]);
    for (std::string* file : {&s.train_data, &s.val_data, &s.text_data})
      if (!file->empty()) *file = std::filesystem::absolute(*file).lexically_normal().string();
    // Full attention keeps every key, whatever k says: one value of k is as good as another.
    if (!uses_k(s.attention) && s.k >= 0) s.k = 0;
    check(s);
    return s;
  }

  // The complaint of check_settings names a flag: here that is a column.
  void check(const RunSettings& s) const {
    try {
      check_settings(s);
    } catch (const InputError& error) {
      const std::string message = error.what();
      const size_t blank = message.find(' ');
      if (!message.starts_with("--") || blank == std::string::npos) table_.fail(row_.line, message);
      table_.fail_cell(row_.line, message.substr(2, blank - 2), message.substr(blank + 1));
    }
  }

  const Table& table_;
  const TableRow& row_;
};

void make_runs(Study& study) {
  study.runs.clear();
  for (size_t v = 0; v < study.variants.size(); ++v) {
    const StudyVariant& variant = study.variants[v];
    for (size_t s = 0; s < variant.seeds.size(); ++s)
      study.runs.push_back(
          {v, s, variant.seeds[s], run_folder_name(variant.settings, variant.seeds[s])});
    if (study.runs.size() > most_runs)
      fail_input(study.name, ", line ", variant.line, ": the table describes more than ", most_runs,
                 " runs");
  }
}

}  // namespace

std::string target_text(const Target& target) {
  return number_text(target.value) + (target.is_accuracy ? "%" : "");
}

Target parse_target(const std::string& text) {
  Target target;
  target.is_accuracy = text.ends_with('%');
  target.value = parse_number(target.is_accuracy ? text.substr(0, text.size() - 1) : text);
  if (!(target.value > 0) || (target.is_accuracy && target.value > 100))
    fail_input("'", text, "' is no target: give a percentage as 95%, or a loss above 0");
  return target;
}

std::string target_description(const Target& target) {
  return target.is_accuracy ? number_text(target.value) + " % training accuracy"
                            : "a training loss of " + number_text(target.value);
}

Study parse_study(std::string_view text, const std::string& name) {
  const Table table = parse_table(text, name);
  check_columns(table);
  Study study{name, std::string(text), {}, {}};
  std::map<std::string, size_t> known;  // variants by what identifies them
  for (const TableRow& row : table.rows) {
    const RowReader reader(table, row);
    const std::vector<uint64_t> seeds = reader.seeds();
    const Target target = reader.target();
    for (const RunSettings& settings : reader.settings()) {
      const auto [entry, is_new] = known.emplace(identity_text(settings), study.variants.size());
      if (is_new) {
        study.variants.push_back({"", "", "", settings, seeds, target, row.line, reader.given()});
        continue;
      }
      const StudyVariant& same = study.variants[entry->second];
      if (same.line != row.line)
        table.fail(row.line, "describes the same run as line ", same.line, " (",
                   run_folder_name(settings, seeds[0]), "); keep one of them");
      if (same.settings.epochs != settings.epochs)
        table.fail_cell(row.line, "epochs", "two values for the same run; give the larger one");
    }
  }
  name_variants(study.variants, table.columns);
  make_runs(study);
  return study;
}

Study read_study(const std::filesystem::path& file) {
  return parse_study(read_file(file, most_bytes), file.string());
}

void take_sizes_of_files(Study& study, const DataRecords& records) {
  for (StudyVariant& v : study.variants) try {
      take_sizes_of_files(v.settings, records, v.given);
    } catch (const InputError& error) {
      fail_input(study.name, ", line ", v.line, ": ", error.what());
    }
}

Study with_seeds(const Study& study, int count) {
  Study changed = study;
  for (StudyVariant& variant : changed.variants) variant.seeds = choose_seeds(count, nullptr);
  make_runs(changed);
  return changed;
}

}  // namespace focus
