// How far an attention layer can move when its scores or its tokens move: the bounds of the paper's
// theory, and those that hold without its detours. Lesson 14 derives each of them.
//
// Two ways to measure. In the 1-norm the movements of all scores (of all weights, of all tokens)
// add up; in the infinity norm the largest counts. lesson 01's sensitivity is of the first kind.
#pragma once

#include <span>

namespace focus {

// If no score moves by more than ε, the weights of a softmax move by at most 2 tanh(ε/2) ≤ ε in the
// 1-norm, whatever the number of scores and their dispersion.
double largest_movement(double epsilon);

// Top-k at a tie of the k-th and the next score: an arbitrarily small move exchanges the two keys,
// and the weights jump by 2w in the 1-norm, w being the lowest kept weight. Between these bounds,
// whose sharpness lesson 14 shows; k ≥ 1, kept scores of dispersion δ_h.
struct JumpBounds {
  double low, high;  // 2 / (1 + (k−1) e^δ_h) and 2 / (k − 1 + e^δ_h)
};
JumpBounds jump_bounds(int k, double kept_dispersion);

// The movement of top-k's weights in the 1-norm when none of n scores moves by more than ε, at
// most: as of a softmax while 2ε is below the separation; from there on also the weight of the keys
// that can enter, twice. scores in any order, 1 ≤ k < n.
double largest_topk_movement(std::span<const double> scores, int k, double epsilon);

// The movement of top-k's weights per movement of the scores, both in the 1-norm, across any change
// of selection: both rows with kept dispersions ≤ δ_h and with separations Δ and Δ′. k ≥ 2.
double topk_sensitivity_bound(int k, double kept_dispersion, double separation,
                              double other_separation);
// The paper's: 2 e^{δ_h} (1 + 1/Δ_h) / k.
double papers_topk_bound(int k, double kept_dispersion, double separation);

// The largest movement of an attention layer's output per movement of its tokens, for tokens of
// norm at most Ξ and a choice of keys that stays. Υ and Γ: analysis/stability.h.
struct LayerNorms {
  double Upsilon, Gamma, Xi;
};
// The largest token in, the largest token out.
double layer_bound_largest(const LayerNorms& n);
// Sums over tokens, in and out; c is the largest sum of a column of the weights, at most e^{δ_s}.
double layer_bound_sum(const LayerNorms& n, double column_sum);
// The paper's for full attention: the last with e^{δ_s} in place of c, rounded up.
double papers_layer_bound(const LayerNorms& n, double dispersion);

}  // namespace focus
