// What lesson 14 measures of every model, what it compares with the epochs, and the rule by which a
// predictor predicts.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

#include "analysis/conditions.h"
#include "analysis/sharpness.h"
#include "files/atomic_file.h"
#include "files/rows.h"
#include "report/figure.h"
#include "report/statistics.h"
#include "study/results.h"
#include "train/run.h"

namespace focus {

inline constexpr int measured_rows = 100;  // held-out ones

// A model's row of measured.csv: pooled over its layers, at the percentiles 75, 90, 95, 100 (the
// separation at 25, 10, 5, 0; NaN where there is none).
struct ModelRow {
  std::string task, mechanism;
  uint64_t seed = 0;
  bool trained = false;
  std::array<double, 4> delta_s = {}, delta_h = {}, separation = {}, beta = {};
  double entropy = 0;  // mean, of the kept keys' weights
};
inline constexpr int table_percentiles[] = {75, 90, 95, 100};
inline constexpr const char* measured_columns =
    "task,mechanism,seed,trained,delta_s_75,delta_s_90,delta_s_95,delta_s_100,delta_h_75,"
    "delta_h_90,delta_h_95,delta_h_100,Delta_h_25,Delta_h_10,Delta_h_5,Delta_h_0,beta_75,beta_90,"
    "beta_95,beta_100,entropy";

inline ModelRow measure_model(Run& run, bool trained, int most_rows = measured_rows) {
  ModelRow row{run.settings().task, attention_text(run.settings()), run.seed(), trained};
  const PaddedData& data = run.data().val;
  const int rows = std::min(most_rows, data.rows);
  Workers workers;
  Model<double> model(run.model().settings());
  for (size_t p = 0; p < model.parameters().size(); ++p) {
    const std::vector<float>& from = run.model().parameters()[p].value;
    model.parameters()[p].value.assign(from.begin(), from.end());
  }
  const Statistics all =
      measure_stability(model, data, rows, workers, std::atomic<bool>{false})->all;
  for (size_t i = 0; i < 4; ++i) {
    const int p = table_percentiles[i];
    const auto at = [](const std::optional<Percentiles>& values, int point) {
      return values ? percentile(*values, point) : std::nan("");
    };
    row.delta_s[i] = percentile(all.dispersion, p), row.delta_h[i] = at(all.kept_dispersion, p);
    row.separation[i] = at(all.separation, 100 - p), row.beta[i] = at(all.key_count, p);
  }
  const std::vector<int> tokens(data.tokens.begin(),
                                data.tokens.begin() + ptrdiff_t{rows} * data.length),
      labels(data.labels.begin(), data.labels.begin() + rows);
  row.entropy = measure_sharpness(run.model(), tokens.data(), labels.data(), rows, workers).entropy;
  return row;
}

inline std::string text_of(const ModelRow& row) {
  std::string text = str(row.task, ",", row.mechanism, ",", row.seed, ",", int(row.trained));
  const auto add = [&](double value) {
    char number[40];
    std::snprintf(number, sizeof number, ",%.7g", value);
    text += value == value ? number : ",";
  };
  for (const auto* values : {&row.delta_s, &row.delta_h, &row.separation, &row.beta})
    for (double value : *values) add(value);
  add(row.entropy);
  return text;
}

inline std::vector<ModelRow> read_rows(const std::filesystem::path& file) {
  std::vector<ModelRow> all;
  for (const std::vector<std::string>& cells :
       focus::read_rows(file, std::string(measured_columns))) {
    ModelRow m{cells[0], cells[1], uint64_t(parse_integer(cells[2])), cells[3] == "1"};
    size_t next = 4;
    const auto take = [&] {
      const std::string& cell = cells[next++];
      return cell.empty() ? std::nan("") : parse_number(cell);
    };
    for (auto* values : {&m.delta_s, &m.delta_h, &m.separation, &m.beta})
      for (double& value : *values) value = take();
    m.entropy = take();
    all.push_back(m);
  }
  return all;
}

// One mechanism against full attention with one seed on one task.
struct AgainstFull {
  std::string task, mechanism;
  uint64_t seed;
  double measured;   // ln of the ratio of epochs; below 0: faster than full
  bool censored;     // the mechanism did not get there: at least this
  double theory;     // ln of the ratio of the two constants; NaN without a separation
  double sharpness;  // difference of mean entropies, nats, untrained
};

// Ranks from 1; equal values share the mean of theirs.
inline std::vector<double> ranks_of(const std::vector<double>& x) {
  std::vector<double> ranks;
  for (double a : x) {
    double below = 0, equal = 0;
    for (double b : x) below += b < a, equal += b == a;
    ranks.push_back(below + (equal + 1) / 2);
  }
  return ranks;
}

// Spearman's rank correlation with ties; NaN where one side is constant.
inline double spearman(const std::vector<double>& x, const std::vector<double>& y) {
  const std::vector<double> a = ranks_of(x), b = ranks_of(y);
  const double n = double(a.size()), middle = (n + 1) / 2;
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - middle) * (b[i] - middle);
    aa += (a[i] - middle) * (a[i] - middle), bb += (b[i] - middle) * (b[i] - middle);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : std::nan("");
}

// The same after each task's mean was taken from both sides, so that tasks that differ do not count
// as a prediction. `without`: this task is left out. The interval is what resampled tasks give:
// rows of one task are alike, so that the tasks are the cases.
template <class F>
Estimate centred_spearman(const std::vector<AgainstFull>& all, const F& predictor,
                          const std::string& without = "") {
  using Pairs = std::vector<std::pair<double, double>>;
  std::map<std::string, Pairs> by_task;
  for (const AgainstFull& c : all)
    if (c.task != without) by_task[c.task].push_back({predictor(c), c.measured});
  std::vector<Pairs> tasks;
  for (auto& [task, pairs] : by_task) {
    double mx = 0, my = 0;
    for (const auto& [px, py] : pairs)
      mx += px / double(pairs.size()), my += py / double(pairs.size());
    for (auto& [px, py] : pairs) px -= mx, py -= my;
    tasks.push_back(std::move(pairs));
  }
  const auto of = [&](const std::vector<size_t>& picked) {
    std::vector<double> x, y;
    for (const size_t t : picked)
      for (const auto& [px, py] : tasks[t]) x.push_back(px), y.push_back(py);
    return spearman(x, y);
  };
  if (!without.empty()) {
    std::vector<size_t> each(tasks.size());
    std::iota(each.begin(), each.end(), size_t{0});
    return {of(each), std::nan(""), std::nan("")};
  }
  return bootstrap(tasks.size(), of);
}

// --- the predictors, and whether they predict

inline const ModelRow* row_of(const std::vector<ModelRow>& rows, const std::string& task,
                              const std::string& mechanism, uint64_t seed, bool trained) {
  for (const ModelRow& r : rows)
    if (r.task == task && r.mechanism == mechanism && r.seed == seed && r.trained == trained)
      return &r;
  return nullptr;
}

// At 95 % (the separation at 5 %), of the untrained models.
inline double theory_of(const ModelRow& full, const ModelRow& other) {
  constexpr size_t at = 2;
  if (other.mechanism.starts_with("full")) return other.delta_s[at] - full.delta_s[at];
  const double separation = std::max(other.separation[at], 1e-9);
  return other.delta_h[at] + std::log(2 * (1 + 1 / separation)) - full.delta_s[at];
}

inline double by_theory(const AgainstFull& c) {
  return c.theory;
}
inline double by_sharpness(const AgainstFull& c) {
  return c.sharpness;
}
inline double by_k(const AgainstFull& c) {
  return std::log(double(parse_integer(c.mechanism.substr(5, c.mechanism.size() - 6))));
}

// README, "The rules": of predictors, over the rows of top-k.
struct Prediction {
  bool holds;
  std::string words;
};
template <class F>
Prediction judge(const std::vector<AgainstFull>& topk, const char* name, const F& predictor) {
  int signs = 0;
  for (const AgainstFull& c : topk) signs += (predictor(c) < 0) == (c.measured < 0);
  const Estimate own = centred_spearman(topk, predictor);
  const double rho = own.value, of_k = centred_spearman(topk, by_k).value;
  bool each = true;
  for (const AgainstFull& c : topk)
    each = each && centred_spearman(topk, predictor, c.task).value > 0;
  char numbers[200], interval[60] = "";
  if (std::isfinite(own.low) && std::isfinite(own.high))  // not with two tasks
    std::snprintf(interval, sizeof interval, ", %.2f to %.2f if tasks are resampled", own.low,
                  own.high);
  std::snprintf(numbers, sizeof numbers,
                "%s: sign right in %d of %zu, rank correlation within tasks %.2f%s (k alone %.2f)",
                name, signs, topk.size(), rho, interval, of_k);
  return {4 * signs >= 3 * int(topk.size()) && rho >= 0.3 && each && rho > std::abs(of_k), numbers};
}

template <class F>
Panel prediction_panel(const std::vector<AgainstFull>& all, const std::string& title,
                       const std::string& x_label, const F& predictor) {
  Panel panel{title, x_label, "measured: ln(epochs / full's)"};
  for (const AgainstFull& c : all) {
    if (!std::isfinite(predictor(c))) continue;
    auto at = std::find_if(panel.series.begin(), panel.series.end(),
                           [&](const Series& s) { return s.name == c.mechanism; });
    if (at == panel.series.end()) {
      at = panel.series.insert(at, Series{c.mechanism});
      at->style = Style::points;
    }
    at->x.push_back(predictor(c)), at->y.push_back(c.measured);
  }
  panel.horizontal = {{0, "as full"}};
  panel.vertical = {{0, ""}};
  return panel;
}

}  // namespace focus
