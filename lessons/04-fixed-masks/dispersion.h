// What lesson 04 measures beside the curves: how much of the scores' dispersion is left under a
// mask (F10), in models with full attention, before and after training.
#pragma once

#include <cmath>
#include <filesystem>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "analysis/scores.h"
#include "error.h"
#include "files/rows.h"
#include "report/figure.h"
#include "report/statistics.h"
#include "train/run.h"

namespace focus {

inline constexpr int measured_sequences = 100;  // of the held-out ones

// dispersion.csv: for a mask on a model, over all blocks and queries, the largest dispersion of the
// kept scores and of all scores; quantiles of the queries' shares, kept / all; and the least of
// these shares once each query's extreme keys stand in its window. For seed 0, all seeds together,
// there are only the quantiles.
inline constexpr const char* dispersion_columns = "mask,trained,seed,what,value";
struct Remaining {
  std::string mask;
  bool trained = false;
  uint64_t seed = 0;
  double largest_full = 0, largest_kept = 0;
  double least_placed = 1;
  std::vector<double> quantiles = {};  // at 0, 2, … 100 %
  double share_of_largest() const { return largest_kept / largest_full; }
};

// The masks that cover exactly the model's tokens.
inline std::vector<AttentionSettings> measured_masks(int k) {
  return {{Pattern::banded, k, 0}, {Pattern::block, k, 0}, {Pattern::topk, k, 0}};
}

// The scores as they would be if the tokens came in another order, one for each query: the tokens
// of its highest and its lowest score have changed places with neighbours of the query, so that a
// band and a block of `k` contain both. The query's own token stays. (A score depends on its two
// tokens, as they enter the block, and not on their order.)
inline HeadScores with_extremes_placed(HeadScores head, int k, Pattern window) {
  const AttentionSettings mask{window, k, 0};
  std::vector<int> begin(size_t(head.T) + 1), keys(size_t(count_nnz(mask, head.T)));
  fill_key_lists(mask, head.T, begin.data(), keys.data());
  for (int b = 0; b < head.B; ++b)
    for (int i = 0; i < head.T; ++i) {
      double* row = head.scores.data() + (ptrdiff_t{b} * head.T + i) * head.T;
      int next = begin[size_t(i)];  // place in the list: where the next extreme goes
      for (const bool highest : {true, false}) {
        const auto [low, high] = std::minmax_element(row, row + head.T);
        double* const extreme = highest ? high : low;
        if (extreme == row + i) continue;
        next += keys[size_t(next)] == i;
        std::swap(*extreme, row[keys[size_t(next++)]]);
      }
    }
  return head;
}

class Dispersions {
 public:
  explicit Dispersions(int k) : k_(k) {}

  // May be called for several models at the same time.
  void measure(size_t seed_index, Run& run, bool trained) {
    const PaddedData& data = run.data().val;
    const int B = std::min(measured_sequences, data.rows);
    const std::vector<int> tokens(data.tokens.begin(),
                                  data.tokens.begin() + ptrdiff_t{B} * data.length);
    std::vector<Measured> models;
    for (const AttentionSettings& mask : measured_masks(k_))
      models.push_back({{str(name_of(mask.pattern), "(", k_, ")"), trained, run.seed()},
                        std::tuple(trained, models.size(), seed_index)});
    Workers workers(1);
    visit_attention_scores<float>(
        run.model(), tokens.data(), B, workers, [&](const HeadScores& head) {
          for (size_t m = 0; m < models.size(); ++m) {
            Remaining& r = models[m].remaining;
            for (const QueryStatistics& q : query_statistics(head, measured_masks(k_)[m])) {
              models[m].shares.push_back(q.kept_dispersion / q.dispersion);
              r.largest_full = std::max(r.largest_full, q.dispersion);
              r.largest_kept = std::max(r.largest_kept, q.kept_dispersion);
            }
            const AttentionSettings mask = measured_masks(k_)[m];
            const Pattern window = is_positional(mask.pattern) ? mask.pattern : Pattern::banded;
            for (const QueryStatistics& q :
                 query_statistics(with_extremes_placed(head, k_, window), mask))
              r.least_placed = std::min(r.least_placed, q.kept_dispersion / q.dispersion);
          }
        });
    const std::lock_guard lock(mutex_);
    all_.insert(all_.end(), models.begin(), models.end());
  }

  std::vector<std::string> rows() {
    std::sort(all_.begin(), all_.end(),
              [](const Measured& a, const Measured& b) { return a.order < b.order; });
    std::vector<std::string> rows;
    std::vector<double> together;
    for (size_t i = 0; i < all_.size(); ++i) {
      const Remaining& r = all_[i].remaining;
      const std::string head = str(r.mask, ",", r.trained ? "yes" : "no", ",");
      rows.push_back(str(head, r.seed, ",largest of all,", r.largest_full));
      rows.push_back(str(head, r.seed, ",largest kept,", r.largest_kept));
      rows.push_back(str(head, r.seed, ",least placed,", r.least_placed));
      add_quantiles(rows, str(head, r.seed), all_[i].shares);
      together.insert(together.end(), all_[i].shares.begin(), all_[i].shares.end());
      const bool is_last = i + 1 == all_.size() || all_[i + 1].remaining.mask != r.mask;
      if (is_last) {
        add_quantiles(rows, head + "0", together);
        together.clear();
      }
    }
    return rows;
  }

 private:
  struct Measured {
    Remaining remaining;
    std::tuple<bool, size_t, size_t> order;
    std::vector<double> shares = {};  // of each query
  };
  static void add_quantiles(std::vector<std::string>& rows, const std::string& head,
                            const std::vector<double>& shares) {
    for (int percent = 0; percent <= 100; percent += 2)
      rows.push_back(str(head, ",share at ", percent, " %,", quantile(shares, percent / 100.0)));
  }

  int k_;
  std::mutex mutex_;
  std::vector<Measured> all_;
};

inline std::vector<Remaining> read_dispersions(const std::filesystem::path& folder) {
  std::vector<Remaining> all;
  for (const auto& cells : read_rows(folder / "dispersion.csv", dispersion_columns)) {
    const std::string &mask = cells[0], &what = cells[3];
    const uint64_t number = uint64_t(parse_integer(cells[2]));
    if (all.empty() || all.back().mask != mask || all.back().seed != number)
      all.push_back({mask, cells[1] == "yes", number});
    Remaining& r = all.back();
    (what == "largest of all" ? r.largest_full
     : what == "largest kept" ? r.largest_kept
     : what == "least placed" ? r.least_placed
                              : r.quantiles.emplace_back()) = parse_number(cells[4]);
  }
  return all;
}

// For each mask: the share of queries, in percent, whose remaining dispersion is at most x.
inline Panel share_panel(const std::vector<Remaining>& all, bool trained, const char* title) {
  Panel panel{title, "kept / full dispersion", "% of queries up to there"};
  for (const Remaining& r : all) {
    if (r.trained != trained || r.seed != 0) continue;
    panel.series.push_back({r.mask, r.quantiles});
    for (size_t q = 0; q < r.quantiles.size(); ++q)
      panel.series.back().y.push_back(2.0 * double(q));
  }
  panel.x_range = {0, 1};
  return panel;
}

}  // namespace focus
