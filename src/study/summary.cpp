#include "study/summary.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace focus {

namespace {

std::vector<double> as_numbers(const std::vector<std::optional<int>>& epochs) {
  std::vector<double> numbers;
  for (const std::optional<int>& e : epochs)
    numbers.push_back(e ? *e : std::numeric_limits<double>::infinity());
  return numbers;
}

template <class... Args>
std::string format(const char* pattern, Args... args) {
  char text[200];
  std::snprintf(text, sizeof text, pattern, args...);
  return text;
}

// Losses and accuracies with six digits, which is more than they mean.
std::string cell(double value) {
  return std::isnan(value) ? "nan" : format("%.6g", value);
}

std::string cells(const Estimate& e) {
  return str(cell(e.value), ",", cell(e.low), ",", cell(e.high));
}

// The columns of a text table, as wide as they need to be; the first one to the left.
std::string aligned(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string gap(widths[c] - row[c].size(), ' ');
      line += c == 0 ? row[c] + gap : str("  ", gap, row[c]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

// "?" also for a ratio to a baseline that never arrived: how large it is, is not known.
std::string ratio_text(double ratio) {
  return std::isfinite(ratio) ? format("%.2f", ratio) : "?";
}

}  // namespace

std::vector<std::optional<int>> epochs_to_target(const StudiedVariant& v) {
  std::vector<std::optional<int>> epochs;
  for (const std::vector<EpochMetrics>& curve : v.curves) {
    std::vector<double> values;
    for (const EpochMetrics& row : curve)
      values.push_back(v.target.is_accuracy ? row.train_accuracy : row.train_loss);
    epochs.push_back(v.target.is_accuracy ? epochs_to(values, v.target.value)
                                          : epochs_down_to(values, v.target.value));
  }
  return epochs;
}

std::vector<double> final_values(const StudiedVariant& v, double EpochMetrics::*metric) {
  std::vector<double> values;
  for (const std::vector<EpochMetrics>& curve : v.curves)
    values.push_back(curve.empty() ? std::nan("") : curve.back().*metric);
  return values;
}

std::vector<double> best_values(const StudiedVariant& v, double EpochMetrics::*metric) {
  std::vector<double> values;
  for (const std::vector<EpochMetrics>& curve : v.curves) {
    double best = std::nan("");
    for (const EpochMetrics& row : curve)
      if (!(row.*metric <= best)) best = row.*metric;  // also when there is none yet
    values.push_back(best);
  }
  return values;
}

Outcomes outcomes_of(const StudiedVariant& v) {
  int longest = 0;
  for (const auto& curve : v.curves) longest = std::max(longest, int(curve.size()));
  return {v.name,
          v.mechanism,
          v.seeds,
          as_numbers(epochs_to_target(v)),
          final_values(v, &EpochMetrics::val_accuracy),
          longest};
}

std::optional<Comparison> compare(const Outcomes& variant, const Outcomes& baseline) {
  std::vector<double> e, base_e, a, base_a;  // of the seeds that both have
  for (size_t s = 0; s < variant.seeds.size(); ++s) {
    const auto other = std::find(baseline.seeds.begin(), baseline.seeds.end(), variant.seeds[s]);
    if (other == baseline.seeds.end()) continue;
    const size_t b = size_t(other - baseline.seeds.begin());
    e.push_back(variant.epochs[s]), base_e.push_back(baseline.epochs[b]);
    a.push_back(variant.val_accuracy[s]), base_a.push_back(baseline.val_accuracy[b]);
  }
  if (e.empty()) return std::nullopt;
  return Comparison{baseline.name, speedup(e, base_e), sign_test(e, base_e), median_gain(a, base_a),
                    sign_test(a, base_a)};
}

std::vector<VariantSummary> summarise(const std::vector<StudiedVariant>& variants) {
  std::vector<VariantSummary> summaries;
  for (const StudiedVariant& v : variants) {
    VariantSummary s;
    s.variant = &v;
    s.epochs = epochs_to_target(v);
    const std::vector<double> epochs = as_numbers(s.epochs);
    s.low_epochs = quantile(epochs, 0.25);
    s.median_epochs = quantile(epochs, 0.5);
    s.high_epochs = quantile(epochs, 0.75);
    s.final_train_loss = median(final_values(v, &EpochMetrics::train_loss));
    s.final_train_accuracy = median(final_values(v, &EpochMetrics::train_accuracy));
    s.final_val_loss = median(final_values(v, &EpochMetrics::val_loss));
    s.final_val_accuracy = median(final_values(v, &EpochMetrics::val_accuracy));
    s.best_val_accuracy = median(best_values(v, &EpochMetrics::val_accuracy));
    for (const StudiedVariant& full : variants)
      if (full.mechanism == "full" && full.rest == v.rest && v.mechanism != "full")
        s.against_full = compare(outcomes_of(v), outcomes_of(full));
    summaries.push_back(std::move(s));
  }
  return summaries;
}

std::string summary_text(const std::vector<VariantSummary>& summaries) {
  std::string text =
      "variant,target,seeds,epochs_to_target,median_epochs,quartile_low,quartile_high,"
      "final_train_loss,final_train_accuracy,final_val_loss,final_val_accuracy,best_val_accuracy,"
      "baseline,speedup,speedup_low,speedup_high,faster,slower,speed_p,"
      "val_gain,val_gain_low,val_gain_high,better,worse,val_p\n";
  for (const VariantSummary& s : summaries) {
    text += str(s.variant->name, ",", target_text(s.variant->target), ",", s.epochs.size(), ",");
    for (size_t i = 0; i < s.epochs.size(); ++i)
      text += str(i ? " " : "", epochs_text(s.epochs[i]));
    for (const double epochs : {s.median_epochs, s.low_epochs, s.high_epochs})
      text += str(",", epochs_text(epochs));
    for (const double value : {s.final_train_loss, s.final_train_accuracy, s.final_val_loss,
                               s.final_val_accuracy, s.best_val_accuracy})
      text += str(",", cell(value));
    if (const auto& c = s.against_full)
      text += str(",", c->baseline, ",", cells(c->speedup), ",", c->epochs.less, ",",
                  c->epochs.greater, ",", cell(c->epochs.p), ",", cells(c->val_gain), ",",
                  c->val_accuracy.greater, ",", c->val_accuracy.less, ",", cell(c->val_accuracy.p));
    else
      text += std::string(13, ',');
    text += "\n";
  }
  return text;
}

std::string summary_table(const std::vector<VariantSummary>& summaries) {
  size_t seeds = 0;
  for (const VariantSummary& s : summaries) seeds = std::max(seeds, s.epochs.size());
  std::vector<std::vector<std::string>> rows = {{"", "target", "epochs, each seed", "median",
                                                 "train loss", "held-out %", "times faster",
                                                 interval_name(seeds), "faster/slower"}};
  for (const VariantSummary& s : summaries) {
    std::string epochs;
    for (const auto& e : s.epochs) epochs += str(epochs.empty() ? "" : " ", epochs_text(e));
    rows.push_back({s.variant->name, target_text(s.variant->target), epochs,
                    epochs_text(s.median_epochs), format("%.4f", s.final_train_loss),
                    format("%.2f", s.final_val_accuracy)});
    if (const auto& c = s.against_full) {
      rows.back().push_back(ratio_text(c->speedup.value));
      rows.back().push_back(interval_text(c->speedup));
      rows.back().push_back(str(c->epochs.less, "/", c->epochs.greater));
    }
  }
  return aligned(rows);
}

}  // namespace focus
