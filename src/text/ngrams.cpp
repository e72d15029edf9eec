#include "text/ngrams.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace focus {

namespace {

std::vector<double> counts_of(std::span<const TokenId> tokens, int vocabulary) {
  std::vector<double> counts(size_t(vocabulary), 0.0);
  for (const TokenId token : tokens) ++counts[token];
  return counts;
}

using PairCounts = std::unordered_map<uint32_t, double>;

uint32_t pair_at(std::span<const TokenId> tokens, size_t i) {
  return uint32_t{tokens[i - 1]} << 16 | tokens[i];
}

}  // namespace

CountedLoss unigram_loss(std::span<const TokenId> train, std::span<const TokenId> held_out,
                         int vocabulary) {
  const std::vector<double> counts = counts_of(train, vocabulary);
  const double total = double(train.size());
  CountedLoss loss;
  for (const double n : counts)
    if (n > 0) loss.train -= n / total * std::log(n / total);
  for (const TokenId token : held_out)
    loss.held_out -= std::log((counts[token] + 1) / (total + vocabulary));
  loss.held_out /= double(held_out.size());
  return loss;
}

CountedLoss bigram_loss(std::span<const TokenId> train, std::span<const TokenId> held_out,
                        int vocabulary) {
  const std::vector<double> counts = counts_of(train, vocabulary);
  // How often a token has another one after it.
  std::vector<double> followed = counts;
  --followed[train.back()];
  PairCounts pairs;
  for (size_t i = 1; i < train.size(); ++i) ++pairs[pair_at(train, i)];

  CountedLoss loss;
  for (size_t i = 1; i < train.size(); ++i)
    loss.train -= std::log(pairs[pair_at(train, i)] / followed[train[i - 1]]);
  loss.train /= double(train.size() - 1);

  const auto with_strength = [&](double s) {
    double sum = 0;
    for (size_t i = 1; i < held_out.size(); ++i) {
      const double prior = (counts[held_out[i]] + 1) / (double(train.size()) + vocabulary);
      const auto seen = pairs.find(pair_at(held_out, i));
      const double n = seen == pairs.end() ? 0 : seen->second;
      //@ gap 15 smoothed-bigram
      sum -= std::log((n + s * prior) / (followed[held_out[i - 1]] + s));
      //@ end
    }
    return sum / double(held_out.size() - 1);
  };
  loss.held_out = with_strength(1);
  for (double s = 2; s <= 4096; s *= 2) loss.held_out = std::min(loss.held_out, with_strength(s));
  return loss;
}

}  // namespace focus
