// Fuzz target for the reader of settings.json: `fuzz_settings SECONDS [SEED]`.
//
// Whatever the reader accepts must be sound: settings that pass their checks, at least one seed,
// and the same text again after writing and reading. fuzz.h has the rest.
#include <stdexcept>

#include "fuzz.h"
#include "tasks/text.h"
#include "train/store.h"

using namespace focus;

static void require(bool sound, const char* what) {
  if (!sound) throw std::logic_error(what);
}

int main(int argc, char** argv) {
  std::vector<std::string> corpus;
  for (const Task& task : all_tasks()) {
    TrainPlan plan;
    plan.settings = RunSettings::defaults_for(task);
    plan.seeds = {1, 153476998, 9223372036854775807u}, plan.threads = 2;
    corpus.push_back(plan_text(plan));
    plan.settings.attention = Pattern::banded;
    plan.settings.k = 1;
    plan.settings.global_tokens = 3;
    plan.program = "results-version 1, compiler 12, probe 0.69";
    plan.settings.train_data = "a \"quoted\\name\"\nü.tsv";
    corpus.push_back(plan_text(plan));
  }
  // What older files do not have.
  TrainPlan plan;
  plan.settings = RunSettings::defaults_for(text_task());
  plan.settings.objective = Objective::causal;
  plan.settings.text_data = "text";
  plan.settings.text_data_record = "rows=12 longest=5 hash=0123456789abcdef vocabulary=262";
  plan.settings.score_scale = 0.5, plan.settings.qk_scale = 2, plan.settings.qk_rate = 0.5;
  plan.seeds = {1};
  corpus.push_back(plan_text(plan));
  plan.settings = RunSettings::defaults_for(find_task("parity"));
  plan.settings.attention = Pattern::topk;
  plan.settings.k = 5;
  plan.settings.freeze_qk = true;
  plan.settings.precision = Precision::bf16;
  plan.device = "cuda", plan.step_kernel = "off";
  corpus.push_back(plan_text(plan));
  return fuzz_main(argc, argv, "fuzz_settings", corpus, [](const std::string& bytes) {
    return accepts([&] {
      const TrainPlan plan = parse_plan(bytes, "fuzz.json");
      check_settings(plan.settings);
      require(!plan.seeds.empty() && plan.seeds.size() <= 1000, "number of seeds");
      require(plan.threads >= 1 && plan.threads <= 1024, "number of threads");
      const std::string text = plan_text(plan);
      require(plan_text(parse_plan(text, "again")) == text, "round trip");
    });
  });
}
