// The four measurements of lesson 01; each returns a panel of the figure and notes what the verdict
// looks at.
#pragma once

#include <string>

#include "analysis/sensitivity.h"
#include "error.h"
#include "report/figure.h"
#include "report/statistics.h"
#include "rng.h"
#include "row_attention.h"

namespace focus {

inline constexpr int k = 5;            // keys that banded and topk keep
inline constexpr double nudge = 1e-6;  // of one score: small against 1, large against rounding
inline const std::string names[] = {"full", str("banded(", k, ")"), str("topk(", k, ")")};

// What the verdict looks at.
struct Findings {
  double largest_share = 0;      // of the bound, over all moves that leave the kept keys alone
  double least_reach = 1;        // worst rows: of the largest possible sensitivity
  double growth = 0;             // of the worst row of 600 scores, from δ = 0 to 3: a factor
  double largest_jump = 0;       // at a swap: as a share of ½ + 2/(kΔ)
  double jump_at_last = 0;       // median at the smallest separation
  double early = 0, missed = 0;  // rows whose kept keys changed too early, or not when they had to
};

// Median and quartiles of `values` at x.
inline void add(Series& series, double x, const Row& values) {
  series.x.push_back(x), series.y.push_back(median(values));
  series.low.push_back(quantile(values, 0.25)), series.high.push_back(quantile(values, 0.75));
}

// How much the weights move per unit of scores while the keys stay; checked against the bound.
inline double moved_by(const Row& a, const Row& b, const Keys& keys, Findings& found) {
  const double moved = distance(attend(a, keys), attend(b, keys)) / distance(a, b);
  const double seen = std::max(dispersion(kept_scores(a, keys)), dispersion(kept_scores(b, keys)));
  const double share = moved / sensitivity_bound(int(keys.size()), seen);
  if (!(share <= found.largest_share)) found.largest_share = share;  // NaN is no small share
  return moved;
}

// The four panels without their series.
inline std::vector<Panel> empty_panels() {
  std::vector<Panel> p = {
      {"1. Worst rows of each dispersion", "dispersion of the scores", "sensitivity"},
      {"2. Random rows", "dispersion of the full row", "sensitivity"},
      {"3. Dispersion that is left", "kept / full dispersion", "% of rows up to there"},
      {"4. Two scores change places", "separation before", "weights moved / scores moved"}};
  p[0].log_y = p[3].log_x = p[3].log_y = true;
  return p;
}

// Bounds are dashed; points are what was measured at single rows.
inline Style style_of(const std::string& series) {
  if (series.starts_with("bound") || series.starts_with("0.5 +")) return Style::dashed;
  if (series.starts_with("worst row") || series.find(", just ") != std::string::npos)
    return Style::points;
  return Style::line;
}

inline Panel worst_rows(Findings& found) {
  Panel p = empty_panels()[0];
  for (int n : {40, 600}) {
    Series bound{str("bound, ", n, " scores")}, worst{str("worst row, ", n, " scores")};
    for (double delta = 0; delta <= 14; delta += 0.5) {
      const Row a = most_sensitive_scores(n, delta);
      Row b = a;
      b[0] -= nudge;
      const double moved = moved_by(a, b, kept_keys(full, a, k, 0), found);
      add(bound, delta, {sensitivity_bound(n, delta)});
      add(worst, delta, {moved});
      found.least_reach = std::min(found.least_reach, moved / largest_sensitivity(n, delta));
      if (n == 600 && delta == 3) found.growth = moved / worst.y.front();
    }
    p.series.push_back(bound), p.series.push_back(worst);
  }
  return p;
}

inline Panel random_rows(const std::vector<Row>& rows, Findings& found) {
  Panel p = empty_panels()[1];
  const int length = int(rows[0].size());
  Series bound{str("bound, ", length, " scores")};
  for (Mechanism mechanism : {full, banded, topk}) {
    p.series.push_back({names[mechanism]});
    for (double scale : {0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 2.5, 3.0, 4.0, 5.0}) {
      Row dispersions;
      Row nudged;
      for (int r = 0; r < int(rows.size()); ++r) {
        Rng rng(1, Stream::analysis, uint32_t(r));
        Row a = rows[size_t(r)];
        for (double& x : a) x *= scale;
        const Keys keys = kept_keys(mechanism, a, k, r);
        dispersions.push_back(dispersion(a));
        const Row weights = attend(a, keys);
        size_t most = 0;  // the weight nearest to ½ moves most
        for (size_t j = 0; j < weights.size(); ++j)
          if (std::abs(weights[j] - 0.5) < std::abs(weights[most] - 0.5)) most = j;
        for (double size : {0.0, 0.01, 0.1, 1.0}) {  // by which all scores move; 0: a nudge of one
          Row b = a;
          for (double& x : b) x += size * rng.normal();
          if (size == 0) b[most] -= nudge;
          if (kept_keys(mechanism, b, k, r) != keys) continue;  // a jump: part 4
          const double moved = moved_by(a, b, keys, found);
          if (size == 0) nudged.push_back(moved);
        }
      }
      add(p.series.back(), median(dispersions), nudged);
      if (mechanism == full)
        add(bound, median(dispersions), {sensitivity_bound(length, median(dispersions))});
    }
  }
  p.series.push_back(bound);
  return p;
}

inline Panel dispersions(const std::vector<Row>& rows) {
  Panel p = empty_panels()[2];
  for (Mechanism mechanism : {full, banded, topk}) {
    Series series{names[mechanism]};
    Row shares;
    for (int r = 0; r < int(rows.size()); ++r) {
      const Row& s = rows[size_t(r)];
      shares.push_back(dispersion(kept_scores(s, kept_keys(mechanism, s, k, r))) / dispersion(s));
    }
    for (int percent = 0; percent <= 100; percent += 5)
      series.x.push_back(quantile(shares, percent / 100.0)), series.y.push_back(percent);
    p.series.push_back(series);
  }
  return p;
}

// The smallest kept score and the largest dropped one, `gap` apart, move towards each other: first
// each by a little less than half the gap, then by a little more, which swaps them.
inline Panel ties(const std::vector<Row>& rows, Findings& found) {
  Panel p = empty_panels()[3];
  Series limit{"0.5 + 2 / (k separation)"}, same{"full, the same move"},
      before{str(names[topk], ", just before")}, after{str(names[topk], ", just after")};
  for (double gap : {3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001}) {
    const double allowed = 0.5 + 2 / (k * gap);
    Row full_moved, before_moved, after_moved;
    for (Row a : rows) {
      std::sort(a.begin(), a.end(), std::greater<>());
      const double lift = gap - (a[k - 1] - a[k]);
      for (size_t j = 0; j < k; ++j) a[j] += lift;
      const Keys keys = kept_keys(topk, a, k, 0), every = kept_keys(full, a, k, 0);
      Row near = a, past = a, all_near = a;
      near[k - 1] -= 0.499 * gap, near[k] += 0.499 * gap;
      past[k - 1] -= 0.501 * gap, past[k] += 0.501 * gap;
      // The most that a change below half the gap can do: every score moves the wrong way.
      for (size_t j = 0; j < a.size(); ++j) all_near[j] += (j < k ? -0.499 : 0.499) * gap;
      const Keys past_keys = kept_keys(topk, past, k, 0);
      found.early += kept_keys(topk, all_near, k, 0) != keys;
      found.missed += past_keys == keys;
      full_moved.push_back(moved_by(a, past, every, found));
      before_moved.push_back(moved_by(a, near, keys, found));
      after_moved.push_back(distance(attend(a, keys), attend(past, past_keys)) / distance(a, past));
      found.largest_jump = std::max(found.largest_jump, after_moved.back() / allowed);
    }
    add(limit, gap, {allowed});
    add(same, gap, full_moved);
    add(before, gap, before_moved);
    add(after, gap, after_moved);
    found.jump_at_last = after.y.back();
  }
  p.series = {limit, after, before, same};
  return p;
}

}  // namespace focus
