// Lesson 17: is it sparsity that makes attention learn, or sharpness? Scores multiplied by C: what
// the softmax is like before training, and how many epochs training takes. README.md has the rule
// of the verdict.
#include "report/lesson.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <map>

#include "analysis/sharpness.h"
#include "files/rows.h"
#include "report/curves.h"
#include "study/lesson_study.h"
#include "study/rule.h"
#include "study/summary.h"

using namespace focus;

namespace {

// The rule's: a median is at most this share of full's.
constexpr double most_of_full = 0.75;

// --- before training -----------------------------------------------------------------------------

struct Start {
  std::string variant;  // "full*4"
  uint64_t seed;
  Sharpness sharpness;
};

constexpr const char* start_columns =
    "variant,seed,dispersion,entropy,sensitivity,loss,qk_gradient,other_gradient";

std::string row_of(const Start& s) {
  const Sharpness& m = s.sharpness;
  char numbers[200];
  std::snprintf(numbers, sizeof numbers, "%.6g,%.6g,%.6g,%.6g,%.6g,%.6g", m.dispersion, m.entropy,
                m.sensitivity, m.loss, m.qk_gradient, m.other_gradient);
  return str(s.variant, ",", s.seed, ",", numbers);
}

std::vector<Start> read_starts(const std::filesystem::path& file) {
  std::vector<Start> starts;
  for (const std::vector<std::string>& cells : read_rows(file, start_columns)) {
    double n[6];
    for (size_t i = 0; i < 6; ++i) n[i] = parse_number(cells[i + 2]);
    starts.push_back(
        {cells[0], uint64_t(parse_integer(cells[1])), {n[0], n[1], n[2], n[3], n[4], n[5]}});
  }
  return starts;
}

// The untrained model of every variant and seed, on the first training examples.
std::vector<Start> measure_starts(const Study& study, int threads, const std::atomic<bool>& stop) {
  constexpr int examples = 100;
  std::vector<Start> starts;
  Workers workers(threads);
  for (const StudyVariant& v : study.variants) {
    if (v.settings.attention == Pattern::random) continue;
    for (const uint64_t seed : v.seeds) {
      if (stop) return starts;
      Run run(v.settings, seed, make_run_data(v.settings, seed));
      const PaddedData& data = run.data().train;
      const int B = std::min(examples, data.rows);
      const std::vector<int> tokens(data.tokens.begin(),
                                    data.tokens.begin() + ptrdiff_t{B} * data.length),
          labels(data.labels.begin(), data.labels.begin() + B);
      starts.push_back(
          {v.name, seed, measure_sharpness(run.model(), tokens.data(), labels.data(), B, workers)});
    }
  }
  return starts;
}

std::vector<double> values_of(const std::vector<Start>& starts, const std::string& variant,
                              double (*value)(const Sharpness&)) {
  std::vector<double> values;
  for (const Start& s : starts)
    if (s.variant == variant) values.push_back(value(s.sharpness));
  return values;
}

double keys_in_effect(const Sharpness& s) {
  return std::exp(s.entropy);
}
double sensitivity_of(const Sharpness& s) {
  return s.sensitivity;
}
double qk_share(const Sharpness& s) {
  return s.qk_gradient / s.other_gradient;
}

// --- the figure ----------------------------------------------------------------------------------

// Variants without larger or faster Q and K, by base mechanism ("full", "topk(5)") and C.
std::map<std::string, std::map<double, std::string>> sweeps_of(const Study& study) {
  std::map<std::string, std::map<double, std::string>> sweeps;
  for (const StudyVariant& v : study.variants) {
    if (!v.rest.empty()) continue;
    const size_t end = v.mechanism.find('*');
    sweeps[v.mechanism.substr(0, end)][v.settings.score_scale] = v.mechanism;
  }
  return sweeps;
}

// One line a base mechanism over C: medians and quartiles of what `values` returns for a variant.
template <class F>
Panel panel_over_factor(const Study& study, const std::string& title, const std::string& y_label,
                        const F& values) {
  Panel panel{title, "C", y_label};
  panel.log_x = true;
  for (const auto& [base, variants] : sweeps_of(study)) {
    Series series{base};
    for (const auto& [factor, name] : variants) {
      const std::vector<double> all = values(name);
      series.x.push_back(factor);
      series.y.push_back(median(all));
      series.low.push_back(quantile(all, 0.25)), series.high.push_back(quantile(all, 0.75));
    }
    if (series.x.size() > panel.x_ticks.size()) panel.x_ticks = series.x;
    panel.series.push_back(std::move(series));
  }
  return panel;
}

Figure draw(const Study& study, const StudyResults& results, const std::vector<Start>& starts) {
  const auto of_start = [&](double (*value)(const Sharpness&)) {
    return [&starts, value](const std::string& name) { return values_of(starts, name, value); };
  };
  const auto epochs = [&](const std::string& name) {
    std::vector<double> all;
    for (const std::optional<int>& e : epochs_to_target(results.variant(name)))
      all.push_back(e ? *e : HUGE_VAL);
    return all;
  };
  Figure figure{"Scores multiplied by C: the untrained model, and how fast it learns"};
  figure.panels = {panel_over_factor(study, "1. Keys in effect, untrained", "exp(entropy)",
                                     of_start(keys_in_effect)),
                   panel_over_factor(study, "2. Sensitivity of the softmax, untrained",
                                     "mean of max 2p(1-p)", of_start(sensitivity_of)),
                   panel_over_factor(study, "3. Gradient of Q and K beside all others', untrained",
                                     "ratio", of_start(qk_share)),
                   panel_over_factor(study, "4. Epochs to 95 %", "epochs", epochs)};
  figure.panels[0].log_y = figure.panels[2].log_y = figure.panels[3].log_y = true;
  const RunSettings& s = study.variants[0].settings;
  figure.caption =
      str("Task ", s.task, ", length ", s.length, ", ", s.train_size,
          " training examples; medians and quartiles of ", study.variants[0].seeds.size(),
          study.variants[0].seeds.size() == 1 ? " seed." : " seeds.");
  return figure;
}

// A row for each C, as Markdown and for terminals alike.
std::string table_of(const Study& study, const StudyResults& results,
                     const std::vector<Start>& starts) {
  std::string text =
      "| C | mechanism | dispersion | keys in effect | sensitivity | Q and K gradient / others' | "
      "epochs to 95 % | held-out % |\n|---|---|---|---|---|---|---|---|\n";
  for (const auto& [base, variants] : sweeps_of(study))
    for (const auto& [factor, name] : variants) {
      const auto at = [&starts, &name = name](double (*value)(const Sharpness&)) {
        return median(values_of(starts, name, value));
      };
      const StudiedVariant& v = results.variant(name);
      std::string epochs;
      for (const auto& e : epochs_to_target(v)) epochs += str(epochs_text(e), " ");
      char row[300];
      std::snprintf(row, sizeof row, "| %g | %s | %.2f | %.1f | %.3f | %.3f | %s| %.1f |\n", factor,
                    base.c_str(), at([](const Sharpness& s) { return s.dispersion; }),
                    at(keys_in_effect), at(sensitivity_of), at(qk_share), epochs.c_str(),
                    median(final_values(v, &EpochMetrics::val_accuracy)));
      text += row;
    }
  return text;
}

// --- the rule ------------------------------------------------------------------------------------

// README, "The rule of the verdict".
Judgement judge(const StudyResults& results) {
  const StudiedVariant &full = results.variant("full"), &sharp = results.variant("full*4"),
                       &topk = results.variant("topk(5)");
  const auto median_of = [](const StudiedVariant& v) { return median_epochs(epochs_to_target(v)); };
  const Judgement faster = judge_epochs(sharp, full, most_of_full);
  const bool enough = median_of(sharp) <= median_of(topk);
  const Judgement start = judge_epochs(results.variant("full qk-scale=2"), full, most_of_full);
  const double at_equal = median_of(sharp) / median_of(results.variant("topk(5)*4"));
  return {
      faster.reproduced && enough && start.reproduced,
      str("(1) ", faster.words, "; (2) median of full at C = 4: ", epochs_text(median_of(sharp)),
          ", of topk(5) at C = 1: ", epochs_text(median_of(topk)),
          "; (3) with Q and K twice as large at the start: ", start.words,
          "; not judged: with Q and K at four times the rate a median of ",
          epochs_text(median_of(results.variant("full qk-rate=4"))),
          ", and at C = 4 topk(5) needs ", at_equal, " times fewer epochs than full")};
}

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-17", "sparsity, or sharpness?");
  if (out.options().paper_scale) {  // more tasks than this lesson's figure and rule are made for
    std::cout << summary_table(summarise(results_at_paper_scale(out).variants))
              << "\nlessons/17-sharpness/RULES.md says how this is judged.\n";
    return 0;
  }
  const Study study = lesson_study(out);
  std::vector<Start> starts;
  if (out.options().redraw) {
    starts = read_starts(out.recorded() / "start.csv");
  } else {
    starts = measure_starts(study, out.options().threads, out.stop());
    if (out.stop()) return out.interrupted();
    std::vector<std::string> rows;
    for (const Start& s : starts) rows.push_back(row_of(s));
    out.table(start_columns, rows, "start.csv");
  }
  const std::optional<StudyResults> results = study_results(out, study);
  if (!results) return out.interrupted();
  out.figure(draw(study, *results, starts));
  const std::string table = table_of(study, *results, starts);
  out.page_table("factors.md", table);
  std::cout << table << "\n" << summary_table(summarise(results->variants)) << "\n";
  const Judgement v = judge(*results);
  return out.verdict(v.reproduced, v.words);
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
