#include "study/shards.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "error.h"
#include "study/names.h"
#include "tasks/task.h"
#include "train/memory.h"

namespace focus {

namespace {

constexpr int most_together = 64;  // runs in a device's memory at the same time

std::string group_name(RunSettings s) {
  s.lr = s.lr_decay = s.qk_scale = s.qk_rate = 1;
  s.freeze_qk = false;
  return identity_text(s);
}

// Roughly, in products. A run of the paper's short sequences leaves most of a GPU idle, so that
// another one beside it, of its group or not, adds a tenth; one of 15000 tokens a batch nearly
// fills it (gpu_step.csv and evaluation_h200.csv: 0.22 and 0.41 ms a step for one and ten runs of
// 25 × 40 tokens, 1.5 and 12.1 of 25 × 600).
EpochCost rough_cost(const RunSettings& s) {
  const double rows = 3.0 * s.train_size + s.val_size, length = s.length;
  const double products = rows * length * s.blocks *
                          (double(s.d_model) * (4.0 * s.d_model * s.heads + 2.0 * s.d_mlp) +
                           2.0 * length * s.d_model * s.heads);
  return {products, products * std::clamp(0.8 * s.batch * length / 15000, 0.1, 1.0)};
}

// How many runs fit, at the very most.
int most_runs_in(double memory, const RunSettings& s) {
  if (memory <= 0) return most_together;
  const ModelSettings model = s.model_settings(s.vocabulary(), s.length + s.global_tokens);
  const double each = least_bytes(model, s.optimizer, std::min(s.batch, s.train_size), 1, 1);
  return int(std::clamp(memory / each, 1.0, double(most_together)));
}

}  // namespace

std::vector<RunGroup> groups_of(const Study& study, const std::vector<size_t>& runs,
                                const std::vector<int>& epochs_left,
                                const std::vector<EpochCost>& costs, double memory) {
  std::vector<RunGroup> groups;
  std::map<std::string, size_t> known;
  for (size_t i = 0; i < runs.size(); ++i) {
    const size_t v = study.runs[runs[i]].variant;
    const RunSettings& s = study.variants[v].settings;
    const auto [entry, is_new] = known.emplace(group_name(s), groups.size());
    if (is_new) groups.push_back({{}, {0, 0, 0, most_runs_in(memory, s)}});
    RunGroup& group = groups[entry->second];
    const EpochCost cost = costs.empty() ? rough_cost(s) : costs[v];
    group.runs.push_back(runs[i]);
    // Runs that have fewer epochs left leave earlier; the longest one counts.
    ++group.cost.runs;
    group.cost.alone = std::max(group.cost.alone, cost.alone * epochs_left[i]);
    group.cost.each_more = std::max(group.cost.each_more, cost.each_more * epochs_left[i]);
  }
  for (RunGroup& group : groups)
    if (group.cost.alone > 0)
      group.cost.fill = std::clamp(group.cost.each_more / group.cost.alone, 0.05, 1.0);
  return groups;
}

std::vector<DealtPiece> deal(const std::vector<RunGroup>& groups, int devices) {
  std::vector<DealtGroup> costs;
  for (const RunGroup& group : groups) costs.push_back(group.cost);
  return deal(costs, devices);
}

std::vector<Party> parties_of(const Study& study, const std::vector<size_t>& runs,
                              const std::vector<int>& epochs_left,
                              const std::vector<EpochCost>& costs, int devices, double memory,
                              int threads) {
  std::map<size_t, size_t> job_of;
  for (const size_t run : runs) job_of.emplace(run, job_of.size());
  const std::vector<RunGroup> groups = groups_of(study, runs, epochs_left, costs, memory);
  const std::vector<DealtPiece> pieces = deal(groups, devices);
  const double of_each = double(devices) / double(std::min(size_t(threads), pieces.size()));
  std::vector<Party> parties;
  for (const DealtPiece& piece : pieces) {
    Party& party = parties.emplace_back();
    party.share = std::min(1.0, std::max(of_each, piece.fill));
    for (int r = 0; r < piece.count; ++r)
      party.jobs.push_back(job_of[groups[piece.group].runs[size_t(piece.first + r)]]);
  }
  return parties;
}

std::vector<size_t> runs_of_shard(const Study& study, int shard, int shards, bool on_device) {
  if (shards < 1 || shard < 1 || shard > shards)
    fail_input("--shard ", shard, "/", shards, ": give I/N with I from 1 to N");
  std::vector<size_t> runs;
  if (!on_device) {
    for (size_t i = size_t(shard) - 1; i < study.runs.size(); i += size_t(shards))
      runs.push_back(i);
    return runs;
  }
  std::vector<size_t> all(study.runs.size());
  std::iota(all.begin(), all.end(), 0);
  std::vector<int> epochs;
  for (const StudyRun& run : study.runs)
    epochs.push_back(study.variants[run.variant].settings.epochs);
  const std::vector<RunGroup> groups = groups_of(study, all, epochs, {}, 0);
  for (const DealtPiece& piece : deal(groups, shards)) {
    if (piece.device != shard - 1) continue;
    const auto first = groups[piece.group].runs.begin() + piece.first;
    runs.insert(runs.end(), first, first + piece.count);
  }
  std::sort(runs.begin(), runs.end());
  return runs;
}

}  // namespace focus
