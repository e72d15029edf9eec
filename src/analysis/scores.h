// The input of every attention head's softmax: a model's scores, and for each query the quantities
// of the paper's theory (section on stability; appendix on sparse attention).
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "analysis/sensitivity.h"
#include "attention/pattern.h"
#include "model/model.h"

namespace focus {

// The scores C q·k / √D (C: score_scale of the model's attention) of one head for B sequences,
// before any mask: scores[(b·T + i)·T + j] is query i's score of key j. In double, from the model's
// own q and k.
struct HeadScores {
  int block, head;
  int B, T;
  std::vector<double> scores;  // (B,T,T)

  std::span<const double> row(int b, int i) const {
    return {scores.data() + (size_t(b) * size_t(T) + size_t(i)) * size_t(T), size_t(T)};
  }
};

// Runs the model on tokens (B, length) without dropout and calls `visit` for every head of every
// block, in order. One head's scores exist at a time: B·T·T·8 bytes, so long sequences go in
// small batches. Returns the logits (B, classes).
template <class T>
std::vector<T> visit_attention_scores(Model<T>& model, const int* tokens, int B, Workers& workers,
                                      const std::function<void(const HeadScores&)>& visit);

// The same, where everything fits in memory at once.
template <class T>
std::vector<HeadScores> attention_scores(Model<T>& model, const int* tokens, int B,
                                         Workers& workers);

// One query under a pattern.
struct QueryStatistics {
  double dispersion;       // δ_s: of all T scores
  double kept_dispersion;  // δ_h: of the kept scores
  double separation;       // Δ_h: smallest kept - largest dropped; NaN if nothing is dropped
  double sensitivity;      // of the softmax over the kept scores
  double entropy;          // of the same, in nats
};

// For all B·T queries, those of sequence 0 first. The keys are those that attention keeps under
// `settings` for sequences of head.T tokens (of equal scores the lower index wins). InputError for
// the random pattern, whose keys differ from call to call.
std::vector<QueryStatistics> query_statistics(const HeadScores& head,
                                              const AttentionSettings& settings);

}  // namespace focus
