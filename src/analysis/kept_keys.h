// Which keys a query keeps under a pattern: by its position, or by its scores.
#pragma once

#include <numeric>
#include <span>
#include <vector>

#include "analysis/largest.h"
#include "attention/pattern.h"
#include "error.h"

namespace focus {

class KeptKeys {
 public:
  // For sequences of T tokens. InputError for the random pattern, which has no fixed choice.
  KeptKeys(const AttentionSettings& settings, int T) : settings_(settings) {
    if (settings.causal) fail_input("scores are analysed without a causal mask only");
    if (settings.pattern == Pattern::random)
      fail_input("random attention keeps other keys at each call: its scores have no statistics");
    if (is_positional(settings.pattern)) {
      begin_.resize(size_t(T) + 1), keys_.resize(size_t(count_nnz(settings, T)));
      fill_key_lists(settings, T, begin_.data(), keys_.data());
    } else {
      keys_.resize(size_t(T));
      std::iota(keys_.begin(), keys_.end(), 0);
    }
  }

  struct Scratch {
    std::vector<int> keys;
    std::vector<double> negated;
  };
  // The kept keys of the query at `position`, ascending; of equal scores the lower key is kept.
  // They last until the scratch is used again.
  std::span<const int> of(int position, std::span<const double> scores, Scratch& scratch) const {
    const size_t i = size_t(position);
    if (is_positional(settings_.pattern))
      return {keys_.data() + begin_[i], keys_.data() + begin_[i + 1]};
    if (settings_.pattern == Pattern::full) return keys_;
    if (settings_.pattern == Pattern::bottomk) {  // the k smallest: the k largest of the negated
      scratch.negated.assign(scores.begin(), scores.end());
      for (double& s : scratch.negated) s = -s;
      scores = scratch.negated;
    }
    scratch.keys = largest_keys(scores, settings_.k);
    return scratch.keys;
  }

 private:
  const AttentionSettings settings_;
  std::vector<int> begin_, keys_;
};

}  // namespace focus
