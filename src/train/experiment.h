// An experiment: the same training with several variants of the settings, each with the same seeds.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "files/metrics.h"
#include "train/settings.h"

namespace focus {

struct Variant {
  std::string name;  // as in figures and tables: "topk(5)"
  RunSettings settings;
};

// What one variant did: a curve for each seed, epoch by epoch.
struct VariantResult {
  std::string name;
  std::vector<std::vector<EpochMetrics>> curves;  // [seed][epoch]

  // One metric of every seed as plain numbers, for statistics and figures.
  std::vector<std::vector<double>> values(double EpochMetrics::*metric) const;
};

// Trains all variants with all seeds side by side, without writing files; all have the same number
// of epochs. `after_epoch` (may be empty) is called one at a time with everything known so far.
// When `stop` is set the results end early.
std::vector<VariantResult> run_experiment(
    const std::vector<Variant>& variants, const std::vector<uint64_t>& seeds, int threads,
    const std::atomic<bool>& stop,
    const std::function<void(const std::vector<VariantResult>&)>& after_epoch);

// "full", "topk(5)", "banded(5)+1": the short name of what a query attends to.
std::string attention_text(const RunSettings& settings);

}  // namespace focus
