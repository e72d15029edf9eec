// Fuzz target for the reader of settings.json: `fuzz_settings SECONDS [SEED]`.
//
// Whatever the reader accepts must be sound: settings that pass their checks, at least one seed,
// and the same text again after writing and reading. fuzz.h has the rest.
#include <stdexcept>

#include "fuzz.h"
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
