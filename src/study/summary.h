// What the results of a study say: epochs to the target, accuracies, and each variant against full
// attention with otherwise the same settings.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "report/statistics.h"
#include "study/results.h"

namespace focus {

// Epochs (from 1) until each seed's curve reaches the target; none for one that never does.
std::vector<std::optional<int>> epochs_to_target(const StudiedVariant& variant);
// The last value of one metric of each seed, and the largest. NaN for a seed without an epoch.
std::vector<double> final_values(const StudiedVariant& variant, double EpochMetrics::*metric);
std::vector<double> best_values(const StudiedVariant& variant, double EpochMetrics::*metric);

// What two variants are compared by, seed by seed.
struct Outcomes {
  std::string name, mechanism;
  std::vector<uint64_t> seeds;
  std::vector<double> epochs;        // to the target; +inf: never
  std::vector<double> val_accuracy;  // after the last epoch
  int longest = 0;                   // epochs of the longest run
};
Outcomes outcomes_of(const StudiedVariant& variant);

// A variant against its baseline, seed by seed, over the seeds that both have.
struct Comparison {
  std::string baseline;
  Estimate speedup;       // median epochs to the target, baseline / variant
  SignTest epochs;        // less: the variant needed fewer epochs
  Estimate val_gain;      // median difference of the final held-out accuracies, points
  SignTest val_accuracy;  // greater: the variant's is higher
};

// `baseline` and `variant` may be any two; nullopt if they share no seed.
std::optional<Comparison> compare(const Outcomes& variant, const Outcomes& baseline);

struct VariantSummary {
  const StudiedVariant* variant = nullptr;
  std::vector<std::optional<int>> epochs;                     // to the target, of each seed
  double median_epochs = 0, low_epochs = 0, high_epochs = 0;  // median, quartiles; +inf: none
  // Medians over the seeds.
  double final_train_loss = 0, final_train_accuracy = 0;
  double final_val_loss = 0, final_val_accuracy = 0, best_val_accuracy = 0;
  // Against full attention with the same other settings; none for that itself.
  std::optional<Comparison> against_full;
};

// `variants` must outlive what is returned.
std::vector<VariantSummary> summarise(const std::vector<StudiedVariant>& variants);

// summary.csv: a header line, and a line for each variant.
std::string summary_text(const std::vector<VariantSummary>& summaries);

// For terminals: variant, epochs of each seed, median, held-out accuracy, speedup and its interval.
std::string summary_table(const std::vector<VariantSummary>& summaries);

}  // namespace focus
