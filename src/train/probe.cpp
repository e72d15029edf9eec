#include "train/probe.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "tasks/text.h"
#include "train/cpu_stepper.h"
#include "train/run.h"

namespace focus {

std::string probe_name(const RunSettings& s) {
  return str(s.task, " ", name_of(s.attention), s.global_tokens > 0 ? "+global" : "", " ",
             name_of(s.activation), " ", name_of(s.optimizer),
             s.score_scale != 1 ? " score-scale" : "", s.qk_scale != 1 ? " qk-scale" : "",
             s.qk_rate != 1 ? " qk-rate" : "", s.freeze_qk ? " freeze-qk" : "",
             s.objective == Objective::causal ? " causal" : "");
}

// In place of a user's text, which may not be there any more.
static std::shared_ptr<const RunData> random_text(const RunSettings& s) {
  constexpr int vocabulary = 300;
  std::vector<TokenId> tokens;
  Rng rng(1, Stream::data);
  for (int i = 0; i < 400; ++i) tokens.push_back(TokenId(rng.below(vocabulary)));
  return std::make_shared<const RunData>(
      RunData{windows_of(tokens, vocabulary, s.length, s.train_size, "train-size"),
              windows_of(tokens, vocabulary, s.length, s.val_size, "val-size"),
              {}});
}

double probe_loss(const RunSettings& settings) {
  RunSettings s = RunSettings::defaults_for(find_task(settings.task));
  s.attention = settings.attention;
  s.k = uses_k(s.attention) ? 3 : 0;
  s.global_tokens = std::min(settings.global_tokens, 1);
  s.activation = settings.activation;
  s.optimizer = settings.optimizer;
  s.objective = settings.objective;
  if (settings.score_scale != 1) s.score_scale = 2;
  if (settings.qk_scale != 1) s.qk_scale = 2;
  if (settings.qk_rate != 1) s.qk_rate = 0.5;
  s.freeze_qk = settings.freeze_qk;
  s.blocks = 2, s.heads = 2, s.d_model = 8, s.d_mlp = 12;
  s.length = 12, s.train_size = 37, s.val_size = 5, s.batch = 8, s.epochs = 1;
  s.lr = s.optimizer == OptimizerKind::adam ? 0.01 : 0.5;
  s.dropout = 0.1;
  Workers workers(1);
  Tape<float> tape(workers);
  const std::atomic<bool> never{false};
  constexpr uint64_t seed = 1;
  try {
    Run run(s, seed, is_text(find_task(s.task)) ? random_text(s) : make_run_data(s, seed));
    return run_epoch(run, tape, never)->train_loss;
  } catch (const RunError&) {
    return std::nan("");
  }
}

bool same_probe(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::abs(a - b) <= probe_tolerance * std::max(std::abs(a), std::abs(b));
}

std::string program_text(const RunSettings& settings) {
  return str("results-version ", results_version, ", compiler ", __VERSION__, ", probe ",
             number_text(probe_loss(settings)));
}

std::string check_same_program(const std::string& folder, const std::string& recorded,
                               const RunSettings& settings) {
  const std::string now = program_text(settings), mark = ", probe ";
  if (recorded == now) return {};
  if (recorded.empty())
    return folder + " is older than the record of the program that made it: nothing to compare";
  const auto split = [&](const std::string& text) {
    const size_t at = text.rfind(mark);
    if (at != text.npos) {
      const std::string loss = text.substr(at + mark.size());
      try {
        return std::tuple{text.substr(0, at), loss,
                          loss == "nan" ? std::nan("") : parse_number(loss)};
      } catch (const InputError&) {
      }
    }
    fail_input(folder, ": '", text, "' is no record of a program; settings.json is damaged");
  };
  const auto [old_program, old_probe, old_loss] = split(recorded);
  const auto [program, probe, loss] = split(now);
  if (!same_probe(old_loss, loss))
    fail_input(folder,
               ": its runs were made by a program that computes other numbers (a tiny run of ",
               probe_name(settings), " ends with the loss ", old_probe, ", here with ", probe,
               "); the code has changed: begin in another folder");
  if (old_program == program) return {};  // they differ in the last digits of the probe
  return str(folder, " was begun by ", old_program, "; this is ", program,
             ", which computes the same numbers");
}

}  // namespace focus
