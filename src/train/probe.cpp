#include "train/probe.h"

#include <algorithm>
#include <cmath>

#include "train/cpu_stepper.h"
#include "train/run.h"

namespace focus {

std::string probe_name(const RunSettings& s) {
  return str(s.task, " ", name_of(s.attention), s.global_tokens > 0 ? "+global" : "", " ",
             name_of(s.activation), " ", name_of(s.optimizer));
}

double probe_loss(const RunSettings& settings) {
  RunSettings s = RunSettings::defaults_for(find_task(settings.task));
  s.attention = settings.attention;
  s.k = uses_k(s.attention) ? 3 : 0;
  s.global_tokens = std::min(settings.global_tokens, 1);
  s.activation = settings.activation;
  s.optimizer = settings.optimizer;
  s.blocks = 2, s.heads = 2, s.d_model = 8, s.d_mlp = 12;
  s.length = 12, s.train_size = 37, s.val_size = 5, s.batch = 8, s.epochs = 1;
  s.lr = s.optimizer == OptimizerKind::adam ? 0.01 : 0.5;
  s.dropout = 0.1;
  Workers workers(1);
  Tape<float> tape(workers);
  const std::atomic<bool> never{false};
  constexpr uint64_t seed = 1;
  try {
    Run run(s, seed, make_run_data(s, seed));
    return run_epoch(run, tape, never)->train_loss;
  } catch (const RunError&) {
    return std::nan("");
  }
}

bool same_probe(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::abs(a - b) <= probe_tolerance * std::max(std::abs(a), std::abs(b));
}

}  // namespace focus
