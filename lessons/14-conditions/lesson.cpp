// Lesson 14: do trained models meet the conditions of the paper's theory, and does the theory, or
// lesson 17's sharpness, predict who learns faster? README.md has the mathematics and the rules of
// the verdict.
#include "report/lesson.h"

#include <iostream>

#include "analysis/convex_toy.h"
#include "at_paper_scale.h"
#include "study/lesson_study.h"

using namespace focus;

namespace {

// --- who needed how many epochs ------------------------------------------------------------------

const std::string& task_of(const Study& study, size_t variant) {
  return study.variants[variant].settings.task;
}

// The first epoch whose training loss is at most `loss`; none: 0.
int epochs_down(const std::vector<EpochMetrics>& curve, double loss) {
  for (const EpochMetrics& e : curve)
    if (e.train_loss <= loss) return e.epoch;
  return 0;
}

std::vector<AgainstFull> compare(const Study& study, const StudyResults& results,
                                 const std::vector<ModelRow>& rows) {
  std::vector<AgainstFull> all;
  for (size_t v = 0; v < study.variants.size(); ++v) {
    const std::string& task = task_of(study, v);
    const StudiedVariant& own = results.variants[v];
    if (own.mechanism == "full") continue;
    for (size_t f = 0; f < study.variants.size(); ++f) {
      const StudiedVariant& full = results.variants[f];
      if (full.mechanism != "full" || task_of(study, f) != task) continue;
      for (size_t s = 0; s < own.seeds.size(); ++s) {
        // The goal is what full attention has at its end, so that it always gets there.
        const double goal = full.curves[s].back().train_loss;
        const int needed = epochs_down(own.curves[s], goal),
                  by_full = epochs_down(full.curves[s], goal);
        const int most = study.variants[v].settings.epochs;
        const ModelRow *a = row_of(rows, task, "full", own.seeds[s], false),
                       *b = row_of(rows, task, own.mechanism, own.seeds[s], false);
        if (!a || !b) fail_input("measured.csv lacks ", task, ", ", own.mechanism);
        all.push_back({task, own.mechanism, own.seeds[s],
                       std::log(double(needed ? needed : most + 1) / by_full), needed == 0,
                       theory_of(*a, *b), b->entropy - a->entropy});
      }
    }
  }
  return all;
}

// --- the figure ----------------------------------------------------------------------------------

constexpr double figure_dispersions[] = {0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4, 8, 16, 32};

template <class F>
Panel frontier_panel(const std::string& title, const F& frontier) {
  Panel panel{title, "c1 = delta_h / delta_s", "smallest c2 = Delta_h / delta_s"};
  panel.x_range = panel.y_range = Interval{0, 1};
  for (double delta_s : figure_dispersions) {
    Series s{str("delta_s = ", delta_s)};
    const auto add = [&](double c1, double c2) {
      s.x.push_back(c1), s.y.push_back(std::max(c2, 1e-4));
    };
    constexpr double step = 1 / 200.0;
    for (int i = 1; i < 200; ++i)
      if (const double c2 = frontier(delta_s, i * step); c2 < 1) add(i * step, c2);
    if (s.x.empty()) continue;
    double low = s.x.back(), high = low + step;  // where it leaves the square
    for (int i = 0; i < 40; ++i)
      (frontier(delta_s, (low + high) / 2) < 1 ? low : high) = (low + high) / 2;
    add(low, frontier(delta_s, low));
    panel.series.push_back(s);
  }
  return panel;
}

Panel inputs_panel(int number, double beta_h) {
  return frontier_panel(str(number, ". Inputs (Figure 22), beta_h = ", beta_h),
                        [beta_h](double s, double c1) { return inputs_frontier(s, c1, beta_h); });
}

// Sections 6 and 7 on a convex toy: measured beside the bounds.
Panel convergence_panel() {
  Panel panel{"5. A convex toy: gap to the minimum", "steps", "mean gap"};
  Series bound{"bound R lambda / sqrt T"}, measured{"SGD"};
  bound.style = Style::dashed;
  for (const int steps : {10, 30, 100, 300, 1000, 3000}) {
    const Bounded gap = convergence_of(ConvexToy(100, 4, 1, 1), steps, 100);
    bound.x.push_back(steps), bound.y.push_back(gap.bound);
    measured.x.push_back(steps), measured.y.push_back(gap.measured);
  }
  panel.series = {bound, measured};
  panel.log_x = panel.log_y = true;
  return panel;
}
Panel stability_panel() {
  Panel panel{"6. The toy: two runs that differ in a row", "lambda", "mean distance of weights"};
  Series bound{"bound 2 lambda T eta / n"}, free{"SGD"}, clipped{"SGD with the clip 0.5"};
  bound.style = Style::dashed;
  for (const double lambda : {0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0}) {
    const ConvexToy toy(100, 4, lambda, 1);
    const Bounded without = stability_of(toy, 200, 0.01, 0, 200);
    bound.x.push_back(lambda), bound.y.push_back(without.bound);
    free.x.push_back(lambda), free.y.push_back(without.measured);
    clipped.x.push_back(lambda);
    clipped.y.push_back(stability_of(toy, 200, 0.01, 0.5, 200).measured);
  }
  panel.series = {bound, free, clipped};
  panel.log_x = panel.log_y = true;
  return panel;
}

Figure draw(const std::vector<AgainstFull>& all, const Study& study) {
  Figure figure{"The conditions of the theory, and what they predict"};
  figure.panels = {
      frontier_panel("1. Weights (Figure 21)", weights_frontier),
      inputs_panel(2, 4),
      prediction_panel(all, "3. Predicted by the theory", "ln of the constants' ratio", by_theory),
      prediction_panel(all, "4. Predicted by the sharpness", "entropy less full's, nats",
                       by_sharpness),
      convergence_panel(),
      stability_panel()};
  for (double beta_h : {1, 2, 8, 16, 32})
    figure.panels.push_back(inputs_panel(int(figure.panels.size()) + 1, beta_h));
  const RunSettings& s = study.variants[0].settings;
  figure.caption =
      str("1, 2 and 7 to 11: what lies above a curve is feasible; a delta_s without a "
          "curve has nothing that is. 3 and 4: six tasks of length ",
          s.length, ", ", s.train_size, " training examples, ", study.variants[0].seeds.size(),
          " seeds; left of 0 a mechanism is predicted to learn faster than full "
          "attention, below 0 it does. A mechanism that does not reach full's last "
          "loss stands at one epoch more than it had.");
  return figure;
}

// --- Table 6 -------------------------------------------------------------------------------------

struct Cells {
  int weights = 0, inputs = 0, capped = 0, all = 0;
};

// Ours at k = 5, medians over seeds, as Markdown; counts the cells that hold.
std::string table_of(const Study& study, const std::vector<ModelRow>& rows, Cells& cells) {
  std::string text =
      "| task | percentile | δ_s (full) | δ_h | Δ_h | β | weights | inputs | capped |\n"
      "|---|---|---|---|---|---|---|---|---|\n";
  for (const StudyVariant& v : study.variants) {
    if (v.mechanism != "topk(5)") continue;
    const int T = (v.settings.length + 4) / 5 * 5;
    for (size_t p = 0; p < 4; ++p) {
      std::vector<double> s, h, gap, beta;
      for (uint64_t seed : v.seeds) {
        const ModelRow *full = row_of(rows, v.settings.task, "full", seed, true),
                       *own = row_of(rows, v.settings.task, "topk(5)", seed, true);
        if (!full || !own) continue;
        s.push_back(full->delta_s[p]), h.push_back(own->delta_h[p]);
        gap.push_back(own->separation[p]), beta.push_back(own->beta[p]);
      }
      const auto floored = [](const std::vector<double>& x) { return std::max(median(x), 1e-9); };
      const double delta_s = floored(s), delta_h = floored(h), separation = floored(gap),
                   b = floored(beta);
      const double weights = weights_left_side(delta_s, delta_h, separation),
                   inputs = inputs_left_side(delta_s, delta_h, separation, b / 5);
      const bool capped = weights_hold_capped(delta_s, delta_h, separation, T);
      ++cells.all;
      cells.weights += weights < 1, cells.inputs += inputs < 1, cells.capped += capped;
      char line[300];
      std::snprintf(line, sizeof line,
                    "| %s | %d | %.2f | %.2f | %.2g | %.0f | %.2f | %.2f | %s |\n",
                    v.settings.task.c_str(), table_percentiles[p], delta_s, delta_h, separation, b,
                    weights, inputs, capped ? "holds" : "no");
      text += line;
    }
  }
  return text;
}

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-14", "are the theory's conditions met, and do they predict?");
  if (out.options().paper_scale) return measure_at_paper_scale(out);
  const std::filesystem::path recorded_paper = out.recorded() / "paper";
  if (out.options().redraw && std::filesystem::exists(recorded_paper))
    tell_paper_scale(out, recorded_paper);
  const Study study = lesson_study(out);
  std::vector<ModelRow> measured;
  std::mutex mutex;
  const auto look = [&](const StudyRun&, Run& run) {
    const ModelRow row = measure_model(run, run.epochs_done() > 0);
    const std::lock_guard lock(mutex);
    measured.push_back(row);
  };
  const std::optional<StudyResults> results = study_results(out, study, look);
  if (!results) return out.interrupted();
  std::vector<std::string> lines;
  for (const ModelRow& row : measured) lines.push_back(text_of(row));
  std::sort(lines.begin(), lines.end());
  out.table(measured_columns, lines, "measured.csv");
  const std::vector<ModelRow> rows =
      read_rows((out.options().redraw ? out.recorded() : out.options().out) / "measured.csv");

  const std::vector<AgainstFull> all = compare(study, *results, rows);
  out.figure(draw(all, study), false);
  Cells cells;
  const std::string table = table_of(study, rows, cells);
  out.page_table("table6.md", table);
  std::cout << table << "\n";

  std::vector<AgainstFull> topk;
  std::map<std::string, std::pair<int, int>> faster;  // by mechanism: faster than full, of all
  int censored = 0;
  for (const AgainstFull& c : all) {
    if (c.mechanism.starts_with("topk")) topk.push_back(c), censored += c.censored;
    faster[c.mechanism].first += c.measured < 0, ++faster[c.mechanism].second;
  }
  std::cout << "faster than full attention to its last training loss:";
  for (const auto& [mechanism, count] : faster)
    std::cout << "  " << mechanism << " " << count.first << " of " << count.second;
  std::cout << "\n\n";
  const Prediction theory = judge(topk, "the theory", by_theory),
                   sharpness = judge(topk, "sharpness", by_sharpness);
  const auto said = [](bool holds) { return holds ? "yes" : "NO"; };
  return out.verdict(
      2 * cells.weights >= cells.all && 2 * cells.inputs >= cells.all,
      str("F12, conditions met in half of the cells: weights ", cells.weights, " of ", cells.all,
          ", inputs ", cells.inputs, ", with full's side capped ", cells.capped,
          "; does it predict? ", theory.words, ": ", said(theory.holds), "; ", sharpness.words,
          ": ", said(sharpness.holds), " (", censored, " of ", topk.size(), " censored)"));
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
