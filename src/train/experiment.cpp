#include "train/experiment.h"

#include <mutex>

#include "train/scheduler.h"

namespace focus {

std::vector<std::vector<double>> VariantResult::values(double EpochMetrics::*metric) const {
  std::vector<std::vector<double>> all;
  for (const std::vector<EpochMetrics>& curve : curves) {
    std::vector<double>& one = all.emplace_back();
    for (const EpochMetrics& row : curve) one.push_back(row.*metric);
  }
  return all;
}

std::vector<VariantResult> run_experiment(
    const std::vector<Variant>& variants, const std::vector<uint64_t>& seeds, int threads,
    const std::atomic<bool>& stop,
    const std::function<void(const std::vector<VariantResult>&)>& after_epoch) {
  if (variants.empty() || seeds.empty()) fail_input("experiment: no variants or no seeds");
  std::vector<VariantResult> results;
  std::deque<Run> runs;  // variant-major: run v · seeds + s
  for (const Variant& variant : variants) {
    check_settings(variant.settings);
    if (variant.settings.epochs != variants[0].settings.epochs)
      fail_input("experiment: '", variant.name, "' has ", variant.settings.epochs,
                 " epochs, the first variant ", variants[0].settings.epochs);
    results.push_back({variant.name, std::vector<std::vector<EpochMetrics>>(seeds.size())});
    for (uint64_t seed : seeds)
      runs.emplace_back(variant.settings, seed, make_run_data(variant.settings, seed));
  }
  std::mutex mutex;
  run_side_by_side(runs, variants[0].settings.epochs, threads, stop,
                   [&](size_t i, std::optional<EpochMetrics> row) {
                     if (!row) return;
                     const std::lock_guard lock(mutex);
                     results[i / seeds.size()].curves[i % seeds.size()].push_back(*row);
                     if (after_epoch) after_epoch(results);
                   });
  return results;
}

std::string attention_text(const RunSettings& s) {
  std::string text = name_of(s.attention);
  if (uses_k(s.attention)) text += str("(", s.k, ")");
  if (s.global_tokens > 0) text += str("+", s.global_tokens);
  return text;
}

}  // namespace focus
