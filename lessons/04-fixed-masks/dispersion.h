// What lesson 04 measures beside the curves: how much of the scores' dispersion is left under a
// mask (F10), in models with full attention, before and after training.
#pragma once

#include <cmath>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "analysis/scores.h"
#include "report/statistics.h"
#include "train/experiment.h"
#include "train/scheduler.h"

namespace focus {

inline constexpr int measured_sequences = 100;  // of the held-out ones

// One mask on one model's scores, over all blocks and queries.
struct Remaining {
  std::string mask;
  bool trained;
  uint64_t seed;
  std::vector<double> shares;  // of each query: dispersion of the kept scores / of all scores
  double largest_full = 0;     // over the queries: dispersion of all scores
  double largest_kept = 0;     // … of the kept scores
  double share_of_largest() const { return largest_kept / largest_full; }
};

// The masks that cover exactly the model's tokens.
inline std::vector<AttentionSettings> measured_masks(int k) {
  return {{Pattern::banded, k, 0}, {Pattern::block, k, 0}, {Pattern::topk, k, 0}};
}

inline void measure(Run& run, const PaddedData& data, bool trained, int k, Workers& workers,
                    std::vector<Remaining>& all) {
  const int B = std::min(measured_sequences, data.rows);
  const std::vector<int> tokens(data.tokens.begin(),
                                data.tokens.begin() + ptrdiff_t{B} * data.length);
  const size_t first = all.size();
  for (const AttentionSettings& mask : measured_masks(k))
    all.push_back({str(name_of(mask.pattern), "(", k, ")"), trained, run.seed(), {}});
  visit_attention_scores<float>(
      run.model(), tokens.data(), B, workers, [&](const HeadScores& head) {
        for (size_t m = 0; first + m < all.size(); ++m) {
          Remaining& r = all[first + m];
          for (const QueryStatistics& q : query_statistics(head, measured_masks(k)[m])) {
            r.shares.push_back(q.kept_dispersion / q.dispersion);
            r.largest_full = std::max(r.largest_full, q.dispersion);
            r.largest_kept = std::max(r.largest_kept, q.kept_dispersion);
          }
        }
      });
}

// Trains full attention with every seed, as run_experiment does, but keeps the models to measure
// them before and after.
inline VariantResult train_full_and_measure(
    const RunSettings& settings, const std::vector<uint64_t>& seeds, int k, int threads,
    const std::atomic<bool>& stop,
    const std::function<void(const std::vector<VariantResult>&)>& after_epoch,
    std::vector<Remaining>& remaining) {
  std::vector<VariantResult> result{{attention_text(settings), {}}};
  result[0].curves.resize(seeds.size());
  std::deque<Run> runs;
  std::vector<std::shared_ptr<const RunData>> data;
  Workers workers(threads);
  for (uint64_t seed : seeds) {
    data.push_back(make_run_data(settings, seed));
    runs.emplace_back(settings, seed, data.back());
    measure(runs.back(), data.back()->val, false, k, workers, remaining);
  }
  std::mutex mutex;
  run_side_by_side(runs, settings.epochs, threads, stop,
                   [&](size_t i, std::optional<EpochMetrics> row) {
                     if (!row) return;
                     const std::lock_guard lock(mutex);
                     result[0].curves[i].push_back(*row);
                     after_epoch(result);
                   });
  for (size_t s = 0; s < runs.size(); ++s)
    measure(runs[s], data[s]->val, true, k, workers, remaining);
  return result[0];
}

// For each mask: the share of queries, in percent, whose remaining dispersion is at most x.
inline Panel share_panel(const std::vector<Remaining>& all, bool trained, int k,
                         const char* title) {
  Panel panel{title, "kept / full dispersion", "% of queries up to there"};
  for (const AttentionSettings& mask : measured_masks(k)) {
    std::vector<double> shares;
    for (const Remaining& r : all)
      if (r.trained == trained && r.mask.starts_with(name_of(mask.pattern)))
        shares.insert(shares.end(), r.shares.begin(), r.shares.end());
    panel.series.push_back({str(name_of(mask.pattern), "(", k, ")")});
    for (int percent = 0; percent <= 100; percent += 2) {
      panel.series.back().x.push_back(quantile(shares, percent / 100.0));
      panel.series.back().y.push_back(percent);
    }
  }
  panel.x_range = {0, 1};
  return panel;
}

}  // namespace focus
