#include "study/make_recording.h"

#include <algorithm>
#include <cmath>

#include "error.h"
#include "joined.h"
#include "study/names.h"
#include "study/nearest.h"
#include "train/inputs.h"

namespace focus {

namespace {

SeedOutcome outcome_of(const std::vector<EpochMetrics>& curve, const Target& target, int epochs) {
  SeedOutcome o;
  std::vector<double> values;
  for (const EpochMetrics& row : curve) {
    values.push_back(target.is_accuracy ? row.train_accuracy : row.train_loss);
    if (o.best_epoch == 0 || row.val_accuracy > o.best_val_accuracy)
      o.best_val_accuracy = row.val_accuracy, o.best_epoch = row.epoch;
  }
  o.epochs =
      target.is_accuracy ? epochs_to(values, target.value) : epochs_down_to(values, target.value);
  if (!curve.empty()) o.last = curve.back();
  for (size_t i = 0; i < recorded_shares.size(); ++i) {
    const size_t e = size_t(std::max(1, epochs * recorded_shares[i] / 100));
    o.val_accuracy_at[i] = e <= curve.size() ? curve[e - 1].val_accuracy : std::nan("");
  }
  return o;
}

RecordedVariant record(const StudyVariant& asked, const StudiedVariant& v,
                       const std::vector<size_t>& picked) {
  RecordedVariant r{asked.name, asked.mechanism, asked.rest, asked.target, asked.settings, {}, {}};
  size_t shortest = SIZE_MAX;  // a run that ended with NaN
  for (const size_t s : picked) {
    r.seeds.push_back(outcome_of(v.curves[s], asked.target, asked.settings.epochs));
    r.seeds.back().seed = v.seeds[s];
    shortest = std::min(shortest, v.curves[s].size());
  }
  for (const int e : recorded_epochs(asked.settings.epochs))
    if (size_t(e) <= shortest) r.epochs.push_back(e);
  for (const auto& [metric, band] : recorded_metrics) {
    std::vector<std::vector<double>> curves;
    for (const size_t s : picked) {
      std::vector<double>& curve = curves.emplace_back();
      for (const int e : r.epochs) curve.push_back(v.curves[s][size_t(e - 1)].*metric);
    }
    r.*band = quartile_band(curves);
  }
  return r;
}

// A run that a note of its results says has ended with NaN or Inf.
bool failed(const StudyResults& results, const StudiedVariant& v, uint64_t seed) {
  for (const auto& [key, value] : results.notes)
    if (key == "failed" && (value + ",").starts_with(str(v.name, ", seed ", seed, ",")))
      return true;
  return false;
}

void add_once(Notes& notes, const std::string& key, const std::string& value) {
  for (auto& [k, v] : notes) {
    if (k != key) continue;
    if (("; " + v + "; ").find("; " + value + "; ") == std::string::npos) v += "; " + value;
    return;
  }
  notes.emplace_back(key, value);
}

}  // namespace

Recording make_recording(const Study& table, const std::vector<StudyResults>& results,
                         bool partial) {
  struct Candidate {
    const StudyResults* results;
    const StudiedVariant* variant;
    RunSettings settings;
  };
  std::vector<Candidate> candidates;
  for (const StudyResults& r : results)
    for (const StudiedVariant& v : r.variants) {
      if (v.settings_note.empty())
        fail_input("'", v.name, "': its results have no '# variant' line with its settings");
      candidates.push_back({&r, &v, settings_of_note(v.settings_note, v.name)});
    }

  Recording recording;
  for (const StudyVariant& asked : table.variants) {
    const Candidate* found = nullptr;
    for (const Candidate& c : candidates) {
      RunSettings wanted = asked.settings;
      take_sizes_of_files(wanted, c.settings);
      if (identity_text(c.settings) == identity_text(wanted)) {
        if (found) fail_input("'", asked.name, "' is recorded more than once");
        found = &c;
      }
    }
    if (!found) {
      const auto nearest = nearest_to(asked.settings, candidates);
      if (!partial)
        fail_input("'", asked.name, "' of ", table.name, " is in none of the results",
                   nearest != candidates.end()
                       ? str("; the nearest is '", nearest->variant->name,
                             "': ", joined(differences(nearest->settings, asked.settings)))
                       : std::string(),
                   "; --partial records what is there and says what is not");
      recording.not_run.push_back(asked.name);
      continue;
    }
    if (found->settings.epochs != asked.settings.epochs)
      fail_input("'", asked.name, "': epochs is ", found->settings.epochs, " in the results, ",
                 asked.settings.epochs, " in ", table.name);
    const StudiedVariant& v = *found->variant;
    std::vector<size_t> picked;
    for (const uint64_t seed : asked.seeds) {
      const auto at = std::find(v.seeds.begin(), v.seeds.end(), seed);
      const size_t s = size_t(at - v.seeds.begin());
      if (at == v.seeds.end()) fail_input("'", asked.name, "': seed ", seed, " is missing");
      if (int(v.curves[s].size()) < asked.settings.epochs && !failed(*found->results, v, seed))
        fail_input("'", asked.name, "', seed ", seed, ": only ", v.curves[s].size(), " of ",
                   asked.settings.epochs, " epochs");
      picked.push_back(s);
    }
    recording.variants.push_back(record(asked, v, picked));
    take_sizes_of_files(recording.variants.back().settings, found->settings);
    for (const auto& [key, value] : found->results->notes) {
      if (key == "date" || key == "hardware") add_once(recording.notes, key, value);
      if (key == "failed" && value.starts_with(v.name + ", seed "))
        recording.notes.emplace_back(key, asked.name + value.substr(v.name.size()));
    }
  }
  if (recording.variants.empty())
    fail_input("none of the variants of ", table.name, " is in the results");
  return recording;
}

}  // namespace focus
