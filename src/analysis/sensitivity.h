// How far a softmax moves when its scores move, and its bound by the dispersion of the scores (the
// paper's section on stability; its norms: 1-norm in, 1-norm out).
#pragma once

#include <span>
#include <vector>

namespace focus {

// max - min of n ≥ 1 scores: the paper's δ_s of all of a query's scores, δ_h of the kept ones.
double dispersion(std::span<const double> scores);

// The largest movement of softmax(scores) per movement of the scores, both in the 1-norm, for small
// moves: the largest column sum of |diag(p) - p pᵀ|, which is max_j 2 p_j (1 - p_j). At most ½.
double softmax_sensitivity(std::span<const double> scores);

// −Σ p_j ln p_j of p = softmax(scores), in nats: 0 where all weight is on one score, ln n where all
// are equal. e to its power says how many equal weights would have the same: the number of keys
// that a query attends to in effect.
double softmax_entropy(std::span<const double> scores);

// The bound min(½, 2 e^δ / (n - 1 + e^δ)) on the sensitivity of any n ≥ 1 scores of dispersion δ.
// It grows like e^δ / n until it saturates.
double sensitivity_bound(int n, double dispersion);

// The largest sensitivity that n ≥ 2 scores of dispersion at most δ ≥ 0 can have: 2 p (1 - p) with
// p = min(½, e^δ / (n - 1 + e^δ)). It is between ¾ of the bound above and all of it. From n = 3 on,
// scores of dispersion exactly δ reach it.
double largest_sensitivity(int n, double dispersion);

// n ≥ 3 such scores, the most sensitive one first. While its weight is at most ½, all others are
// equal. Otherwise the second is δ below it and the rest come up until its weight is ½.
std::vector<double> most_sensitive_scores(int n, double dispersion);

}  // namespace focus
