// What the theory of the paper (section on stability, appendix on sparse attention, Table 6) needs
// to know of a trained model: how far its scores are spread, how well the kept ones are separated
// from the dropped ones, how many queries share a key, and the norms of its weights.
//
// For one query of one head, over all T keys, PAD and global tokens included:
//   δ_s  largest − smallest of its T scores
//   δ_h  largest − smallest of the kept scores
//   Δ_h  smallest kept − largest dropped; negative where a mask drops a larger one
// and for one key of one head of one sequence
//   β    how many of the T queries keep it
// A factor C on the scores counts in all of them. Everything is computed in double from the
// checkpoint's float32 weights, without dropout; with a device, queries and keys in float32. (The
// authors' script leaves dropout on the attention weights, so that its layers after the first see
// noise.)
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "analysis/scores.h"
#include "tasks/dataset.h"
#include "train/stepper.h"

namespace focus {

// The percentiles that Table 6 and its neighbours use: linear between the sorted values.
inline constexpr int percentile_points[] = {0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100};
using Percentiles = std::array<double, std::size(percentile_points)>;
double percentile(const Percentiles& all, int point);  // one of percentile_points

// Of one layer, or of all.
struct Statistics {
  // Over rows, heads and queries (β: keys).
  Percentiles dispersion = {},
              sensitivity = {};  // δ_s; max_j 2 p_j (1 − p_j) of the kept keys' weights
  // Where some keys are dropped by design; the separation only where some key really is dropped.
  std::optional<Percentiles> kept_dispersion = {}, separation = {}, key_count = {};  // δ_h, Δ_h, β
  // 2-norms of weights with their biases as one more column; the heads' matrices lie below each
  // other, as in the checkpoint. Of all layers the largest.
  double value_norm = 0;     // Υ = ‖[W_V b_V]‖
  double score_norm = 0;     // Γ = C ‖[W_Q b_Q]ᵀ [W_K b_K]‖ / √D
  double mlp_norm = 0;       // B = max(‖[P p]‖, ‖[R r]‖)
  double largest_token = 0;  // Ξ: the largest ‖x‖ that enters the scores (after the layer norm)
};

struct Stability {
  std::vector<Statistics> layers;
  Statistics all;  // pools the queries of all layers
};

// One query's row of Table 6. `kept` are its scores at the kept keys, `dropped` the others.
struct RowStatistics {
  double dispersion, kept_dispersion, separation;  // NaN: nothing is dropped
};
RowStatistics row_statistics(std::span<const double> scores, std::span<const int> kept);

// Over the first `rows` rows of data. nullopt: `stop` was set on the way. `progress`, if given, is
// told the share that is done. InputError for the random pattern, RunError for scores that are not
// finite. Memory: 20 bytes for each query of each head and layer.
std::optional<Stability> measure_stability(Model<double>& model, const PaddedData& data, int rows,
                                           Workers& workers, const std::atomic<bool>& stop,
                                           const std::function<void(double)>& progress = {});
// The same with the model's forward on a device.
std::optional<Stability> measure_stability(Device& device, const Model<double>& model,
                                           const PaddedData& data, int rows, Workers& workers,
                                           const std::atomic<bool>& stop,
                                           const std::function<void(double)>& progress = {});

}  // namespace focus
