// The two conditions under which the paper's guarantee for top-k is better than the one for full
// attention (appendix on sparse attention; Table 6, Figures 21 and 22), as its published scripts
// compute them.
//
//   weights  2 e^{δ_h} (1 + 1/Δ_h) < e^{δ_s}
//   inputs   e^{δ_h} (δ_s (1 + β_h) (1 + 1/Δ_h) + β_h) < e^{δ_s} (δ_s + 1)
//
// In the second δ_s stands for 2 Γ Ξ², the bound on it that the weights give. δ_s is the dispersion
// of a model with full attention, the others are those of a model with top-k; β_h = β / k.
#pragma once

#include <vector>

#include "analysis/stability.h"

namespace focus {

// The logarithms of both sides, divided by δ_s and arranged so that a condition holds where this is
// below 1: how much of full's dispersion top-k's side needs.
double weights_left_side(double delta_s, double delta_h, double separation);
double inputs_left_side(double delta_s, double delta_h, double separation, double beta_h);

// The first condition with full's side capped. e^{δ_s} is T times a bound on the softmax's
// sensitivity that nothing caps, but a sensitivity is never above ½: 2 e^{δ_h} (1 + 1/Δ_h) must be
// below min(e^{δ_s}, T/2).
bool weights_hold_capped(double delta_s, double delta_h, double separation, int T);

// A row of Table 6. Every statistic at least 1e-9, which keeps the logarithms finite.
struct Condition {
  int percentile;  // of δ_s, δ_h and β; Δ_h is taken at 100 − percentile
  double delta_s, delta_h, separation, beta;
  double weights, inputs;  // left sides
};
// At the percentiles 75, 90, 95 and 100 of two models, each pooled over its layers. InputError
// where `sparse` drops no key.
std::vector<Condition> table_6(const Statistics& full, const Statistics& sparse, int k);

// The frontiers of Figures 21 and 22: with δ_h = c₁ δ_s, the smallest c₂ = Δ_h / δ_s for which a
// condition holds. Infinite where none does.
double weights_frontier(double delta_s, double c1);
double inputs_frontier(double delta_s, double c1, double beta_h);

}  // namespace focus
