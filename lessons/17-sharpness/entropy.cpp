// results/entropy.csv: how many keys a query attends to before training, in the runs of paper.csv
// and, on even pairs, controls.csv. Lesson 17's rules compare arms of equal
// entropy. `make build/entropy && build/entropy`
#include <cstdio>
#include <iostream>

#include "analysis/scores.h"
#include "error.h"
#include "files/atomic_file.h"
#include "report/lesson.h"
#include "report/statistics.h"
#include "train/run.h"

using namespace focus;

namespace {

constexpr int sequences = 20, seeds = 10;

// The mean over queries, sequences, blocks and seeds.
double mean_entropy(const RunSettings& settings) {
  std::vector<double> all;
  Workers workers(1);
  for (const uint64_t seed : choose_seeds(seeds, nullptr)) {
    RunSettings few = settings;
    few.train_size = few.val_size = sequences;
    Run run(few, seed, make_run_data(few, seed));
    const PaddedData& data = run.data().val;
    const std::vector<int> tokens(data.tokens.begin(), data.tokens.end());
    const AttentionSettings attention = settings.model_settings(1, data.length).attention;
    visit_attention_scores<float>(
        run.model(), tokens.data(), data.rows, workers, [&](const HeadScores& head) {
          for (const QueryStatistics& q : query_statistics(head, attention))
            all.push_back(q.entropy);
        });
  }
  return mean(all);
}

int measure() {
  std::string text = str("# before training: the mean over ", seeds, " seeds, ", sequences,
                         " sequences of each, blocks and queries; in nats\n",
                         "task,attention,k,score_scale,entropy\n");
  const auto add = [&](const char* task, Pattern attention, int k, double c) {
    RunSettings s = RunSettings::defaults_for(find_task(task));
    s.attention = attention, s.k = k, s.score_scale = c;
    char line[128];
    std::snprintf(line, sizeof line, "%s,%s,%d,%g,%.3f\n", task, name_of(attention), k, c,
                  mean_entropy(s));
    text += line;
    std::cout << line << std::flush;
  };
  for (const char* task : {"even-pairs", "missing-duplicate", "stack-manipulation",
                           "modular-arithmetic", "solve-equation", "cycle-navigation", "parity"})
    for (const double c : {0.5, 1., 2., 4., 8., 16.}) {
      add(task, Pattern::full, 0, c);
      add(task, Pattern::topk, 5, c);
    }
  for (const int k : {2, 10})
    for (const double c : {1., 2., 4., 8.}) add("even-pairs", Pattern::topk, k, c);
  for (const double c : {1., 4., 16.}) add("even-pairs", Pattern::bottomk, 5, c);
  write_file_atomically("lessons/17-sharpness/results/entropy.csv", text);
  return 0;
}

}  // namespace

int main() {
  return run_lesson(measure);
}
