// Lesson 06: does a model that learns faster with top-k attention also do better on examples that
// it has not seen? README.md has the mathematics and the rule of the verdict.
#include "report/lesson.h"

#include <algorithm>
#include <cstdio>
#include <iostream>

#include "report/curves.h"
#include "report/statistics.h"
#include "study/paper_scale.h"
#include "study/summary.h"
#include "train/run.h"

using namespace focus;

namespace {

constexpr double above_guessing = 10;  // points of held-out accuracy that count as generalising
constexpr double tolerated = 1;        // points by which top-k may fall behind full

// What one mechanism comes to at the end of a task: medians over the seeds.
struct Outcome {
  double train_loss = 0, train_accuracy = 0, val_accuracy = 0;
};

Outcome outcome_of(const StudiedVariant& v) {
  return {median(final_values(v, &EpochMetrics::train_loss)),
          median(final_values(v, &EpochMetrics::train_accuracy)),
          median(final_values(v, &EpochMetrics::val_accuracy))};
}

// The share of the commonest label in the held-out sets, in percent: what guessing reaches.
double guessing(const RunSettings& settings, const std::vector<uint64_t>& seeds) {
  std::vector<double> shares;
  for (uint64_t seed : seeds) {
    const auto data = make_run_data(settings, seed);
    std::vector<int> count(256, 0);
    for (int label : data->val.labels) ++count[size_t(label)];
    shares.push_back(100.0 * *std::max_element(count.begin(), count.end()) / data->val.rows);
  }
  return median(shares);
}

struct TaskOutcome {
  std::string task;
  double guess = 0;
  std::vector<std::pair<std::string, Outcome>> mechanisms;
  const Outcome& of(const std::string& mechanism) const {
    for (const auto& [name, outcome] : mechanisms)
      if (name == mechanism) return outcome;
    fail_input("lesson 06: no ", mechanism, " for ", task);
  }
  double best_val() const { return std::max(of("full").val_accuracy, of("topk(5)").val_accuracy); }
  bool generalises() const { return best_val() >= guess + above_guessing; }
};

std::vector<TaskOutcome> outcomes(const StudyResults& results, const Study& study) {
  std::vector<TaskOutcome> all;
  for (const std::string& task : results.rests()) {
    TaskOutcome& one = all.emplace_back();
    one.task = task;
    for (const StudyVariant& v : study.variants)
      if (v.settings.task == task && v.settings.attention == Pattern::full)
        one.guess = guessing(v.settings, v.seeds);
    for (const StudiedVariant& v : results.variants)
      if (v.rest == task) one.mechanisms.push_back({v.mechanism, outcome_of(v)});
  }
  return all;
}

// The same of what is recorded at the paper's scale.
std::vector<TaskOutcome> outcomes(const Recording& recording) {
  std::vector<TaskOutcome> all;
  for (const std::string& task : rests_of(recording)) {
    TaskOutcome& one = all.emplace_back();
    one.task = task;
    for (const RecordedVariant& v : recording.variants) {
      if (v.rest != task) continue;
      if (v.mechanism == "full") one.guess = guessing(v.settings, v.outcomes().seeds);
      const auto at_the_end = [&](double EpochMetrics::*metric) {
        return median(v.values([&](const SeedOutcome& s) { return s.last.*metric; }));
      };
      one.mechanisms.push_back(
          {v.mechanism,
           {at_the_end(&EpochMetrics::train_loss), at_the_end(&EpochMetrics::train_accuracy),
            at_the_end(&EpochMetrics::val_accuracy)}});
    }
  }
  return all;
}

// "| task | guessing | …", a row for each task: training loss, then training / held-out accuracy.
std::string page_table(const std::vector<TaskOutcome>& tasks) {
  std::string head = "| task | guessing |", rule = "|---|---|", rows;
  for (const auto& [name, outcome] : tasks[0].mechanisms)
    head += str(" ", name, " |"), rule += "---|";
  char cell[64];
  for (const TaskOutcome& t : tasks) {
    std::snprintf(cell, sizeof cell, "| %s | %.1f |", t.task.c_str(), t.guess);
    rows += cell;
    for (const auto& [name, o] : t.mechanisms) {
      std::snprintf(cell, sizeof cell, " %.3f, %.1f / %.1f |", o.train_loss, o.train_accuracy,
                    o.val_accuracy);
      rows += cell;
    }
    rows += "\n";
  }
  return head + "\n" + rule + "\n" + rows;
}

Figure draw(const StudyResults& results, const RunSettings& s) {
  Figure figure{"Seven tasks: what is learnt, and what holds for unseen examples"};
  const std::vector<std::string> tasks = results.rests();
  figure.columns = int(tasks.size());
  for (const std::string& task : tasks)
    figure.panels.push_back(curve_panel(results.with_rest(task), &EpochMetrics::train_loss, task,
                                        "training cross-entropy"));
  for (const std::string& task : tasks)
    figure.panels.push_back(curve_panel(results.with_rest(task), &EpochMetrics::val_accuracy, "",
                                        "held-out accuracy, %"));
  figure.caption =
      str("Length ", s.length, ", ", s.train_size, " training examples, ", s.val_size,
          " held out; medians and quartiles of ", results.variants[0].seeds.size(), " seeds.");
  return figure;
}

// The rule, as the README states it.
Judgement judge(const std::vector<TaskOutcome>& tasks) {
  int lower_loss = 0, judged = 0, ahead = 0, behind = 0;
  std::string generalise, only_learn;
  for (const TaskOutcome& t : tasks) {
    const Outcome &full = t.of("full"), &topk = t.of("topk(5)");
    const bool lower = topk.train_loss < full.train_loss;
    lower_loss += lower;
    if (t.generalises()) {
      ++judged;
      ahead += topk.val_accuracy > full.val_accuracy;
      behind += !(topk.val_accuracy >= full.val_accuracy - tolerated);
      generalise += " " + t.task;
    } else if (lower) {
      only_learn += " " + t.task;
    }
  }
  const bool faster = 7 * lower_loss >= 5 * int(tasks.size());
  const bool better = judged >= 2 && behind == 0 && 2 * ahead >= judged;
  return {faster && better,
          str("1. lower training loss with topk(5) than with full in ", lower_loss, " of ",
              tasks.size(), " tasks (5 of 7 asked): ", faster ? "yes" : "NO",
              "; 2. tasks that generalise:", generalise.empty() ? " none" : generalise,
              "; of these ", judged, " topk(5) has the higher held-out accuracy in ", ahead,
              " and falls behind by more than a point in ", behind, ": ", better ? "yes" : "NO",
              "; lower training loss that does not generalise:",
              only_learn.empty() ? " none" : only_learn)};
}

void tell_paper_scale(Lesson& out, const Recording& recording) {
  const Judgement v = judge(outcomes(recording));
  out.paper_scale(
      paper_figure(
          recording, {"full", "topk(5)", "banded(5)", "block(5)"},
          "Seven tasks at the paper's scale: what is learnt, and what holds for unseen examples"),
      paper_table(recording), v.reproduced, v.words);
}

Judgement show(Lesson& out, const Study& study, const StudyResults& results) {
  out.figure(draw(results, study.variants[0].settings), false);
  const std::vector<TaskOutcome> tasks = outcomes(results, study);
  const std::string table = page_table(tasks);
  out.page_table("tasks.md", table);
  std::cout << "at the end: training loss, training / held-out accuracy\n" << table << "\n";
  return judge(tasks);
}

}  // namespace

int main(int argc, char** argv) {
  return judge_at_both_scales(argc, argv, "lesson-06",
                              "does what is learnt faster hold for unseen examples too?", show,
                              tell_paper_scale);
}
