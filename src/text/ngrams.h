// What a model of next tokens has to beat: two models that only count.
#pragma once

#include <span>

#include "tasks/padded_data.h"

namespace focus {

// Mean cross-entropy in nats a token. On the training tokens the counts are those of these tokens
// themselves, so no model of that order can do better there; on held-out tokens they are smoothed.
struct CountedLoss {
  double train = 0, held_out = 0;
};

// p(w) = (n(w) + 1) / (N + V).
CountedLoss unigram_loss(std::span<const TokenId> train, std::span<const TokenId> held_out,
                         int vocabulary);

// p(w | v) = (n(v w) + s p(w)) / (n(v) + s) with the unigram's p(w) (a hierarchical Dirichlet
// prior: MacKay and Peto 1995). The strength s is whichever power of two predicts the held-out
// tokens best: the baseline's only free number is set in its favour.
CountedLoss bigram_loss(std::span<const TokenId> train, std::span<const TokenId> held_out,
                        int vocabulary);

}  // namespace focus
