// results.csv: what all runs of a study measured, in one file that figures, tables and verdicts can
// be made from again.
//
//   # date: 2026-11-23                                   notes: about the whole file,
//   # variant topk(5): target 95%; seeds 1 2; k=5 …    and about each variant
//   variant,epoch,seed,train_loss,train_accuracy,val_loss,val_accuracy
//
// By variant, then seed in the order of the table, then epoch. Numbers have the digits of
// metrics.csv. There are no seconds: equal runs give equal bytes.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "report/curves.h"
#include "study/study.h"

namespace focus {

inline constexpr const char* results_columns =
    "variant,epoch,seed,train_loss,train_accuracy,val_loss,val_accuracy";

// One variant of a study as it is judged: its name in parts, the target and the curves.
struct StudiedVariant {
  std::string name, mechanism, rest;
  Target target;
  std::vector<uint64_t> seeds;
  // [seed][epoch]; shorter than the others where a run ended with NaN or Inf.
  std::vector<std::vector<EpochMetrics>> curves;
  std::string settings_note = {};  // as a file that was read has it
};

using Notes = std::vector<std::pair<std::string, std::string>>;

struct StudyResults {
  Notes notes;  // the '#' lines that are not about a variant, in order: "date", "hardware", …
  std::vector<StudiedVariant> variants;

  const StudiedVariant& variant(const std::string& name) const;  // std::logic_error if unknown
  // As the functions of report/curves.h take them: variants whose `rest` is this.
  std::vector<VariantResult> with_rest(const std::string& rest) const;
  // The different values of `rest`, in order.
  std::vector<std::string> rests() const;
};

// The variants of a study, without curves yet.
std::vector<StudiedVariant> empty_variants(const Study& study);
// "task=even-pairs attention=topk k=5 …": every setting.
std::string settings_note(const RunSettings& settings);
// And back; settings that the note does not name have their usual value. InputError begins with
// `where`.
RunSettings settings_of_note(const std::string& note, const std::string& where);

std::string results_text(const Study& study, const Notes& notes,
                         const std::vector<StudiedVariant>& variants);

// InputError with the line for anything that is not such a file. Variants without a note, as in
// files of an older form, get the default target.
StudyResults parse_results(std::string_view text, const std::string& name);
StudyResults read_results(const std::filesystem::path& file);

}  // namespace focus
