// The engine of studies: what runs compute does not depend on how they are scheduled, stopped or
// split; results of others are never mixed in.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "study/engine.h"
#include "study/store.h"
#include "train/cpu_stepper.h"
#include "train/probe.h"
#include "train/scheduler.h"

using namespace focus;
namespace fs = std::filesystem;

namespace {

const char* small_columns = "length,d-model,d-mlp,blocks,train-size,val-size,batch";
const char* small_values = "10,8,8,1,60,20,10";

Study small_study(const std::string& columns, const std::string& values) {
  return parse_study(str(columns, ",", small_columns, "\n", values, ",", small_values, "\n"), "t");
}

struct Folder {
  fs::path path = fs::temp_directory_path() / str("focus-study-", ::getpid());
  Folder() { fs::remove_all(path); }
  ~Folder() { fs::remove_all(path); }
};

std::string text_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream bytes;
  bytes << in.rdbuf();
  return bytes.str();
}

// All that must be equal, without the hardware and the date.
std::string text_of(const Study& study, const StudyOutcome& outcome) {
  return results_text(study, {}, outcome.results.variants);
}

}  // namespace

TEST_CASE("study engine: threads, order and place change no result") {
  const Study study = small_study("attention,k,epochs,seeds,dropout", "full|topk|random,3,4,3,0.1");
  const StudyOutcome plain = run_study(study, {.threads = 1});
  CHECK(plain.is_over);
  REQUIRE(plain.results.variants.size() == 3);
  for (const StudiedVariant& v : plain.results.variants)
    for (const auto& curve : v.curves) CHECK(curve.size() == 4);
  CHECK(text_of(study, run_study(study, {.threads = 3})) == text_of(study, plain));
  CHECK(text_of(study, run_study(study, {.threads = 16, .together = true})) ==
        text_of(study, plain));
  const Folder folder;
  const StudyOutcome stored = run_study(study, {.out = folder.path, .threads = 2});
  CHECK(text_of(study, stored) == text_of(study, plain));
  const StudyResults read = read_results(folder.path / "results.csv");
  CHECK(results_text(study, {}, read.variants) == text_of(study, plain));

  // The engine adds nothing to the runs: each is the one that trains alone.
  const std::atomic<bool> never{false};
  for (size_t v = 0; v < study.variants.size(); ++v)
    for (size_t s = 0; s < 3; ++s) {
      const RunSettings& settings = study.variants[v].settings;
      const uint64_t seed = study.variants[v].seeds[s];
      Workers workers(1);
      Tape<float> tape(workers);
      Run run(settings, seed, make_run_data(settings, seed));
      EpochMetrics last;
      for (int epoch = 0; epoch < 4; ++epoch) last = *run_epoch(run, tape, never);
      CHECK(std::abs(last.train_loss - plain.results.variants[v].curves[s][3].train_loss) < 1e-8);
    }
}

TEST_CASE("study engine: a stopped study goes on, and what is over is not made again") {
  const Study study = small_study("attention,k,epochs,seeds", "full|topk,3,5,2");
  const std::string whole = text_of(study, run_study(study, {.threads = 1}));
  const Folder folder;
  std::atomic<bool> stop{false};
  int epochs = 0, stops = 0;
  StudyOutcome outcome;
  do {
    stop = false;
    int now = 0;
    const StudyObserver observer{&stop, [&](const StudyProgress&) {
                                   ++epochs;
                                   stop = ++now == 3;
                                 }};
    outcome = run_study(study, {.out = folder.path, .threads = 1}, observer);
    stops += !outcome.is_over;
    REQUIRE(stops < 20);
  } while (!outcome.is_over);
  CHECK(stops >= 5);
  CHECK(epochs == 20);  // each of the 4 × 5 was made once
  CHECK(text_of(study, outcome) == whole);
  const auto before = fs::last_write_time(folder.path / "study.txt");
  const StudyOutcome again = run_study(study, {.out = folder.path, .threads = 1},
                                       {&stop, [&](const StudyProgress&) { ++epochs; }});
  CHECK(epochs == 20);
  CHECK(text_of(study, again) == whole);
  CHECK(fs::last_write_time(folder.path / "study.txt") == before);

  // A longer table: more epochs and another variant use what is there.
  const Study more = small_study("attention,k,epochs,seeds", "full|topk|banded,3,7,2");
  const StudyOutcome longer = run_study(more, {.out = folder.path, .threads = 2},
                                        {nullptr, [&](const StudyProgress&) { ++epochs; }});
  CHECK(epochs == 20 + 2 * 4 + 7 * 2);
  CHECK(text_of(more, longer) == text_of(more, run_study(more, {.threads = 1})));
}

TEST_CASE("study engine: a run that diverges is a result, not an end") {
  // Rates this large end in NaN or Inf within the first epochs, without a limit on the gradient.
  const Study study =
      small_study("attention,epochs,seeds,lr,clip,optimizer", "full,5,1,1e6|0.1,0,sgd");
  const Folder folder;
  const StudyOutcome outcome = run_study(study, {.out = folder.path, .threads = 1});
  CHECK(outcome.is_over);
  CHECK(outcome.results.variants[0].curves[0].size() < 5);
  CHECK(outcome.results.variants[1].curves[0].size() == 5);
  const auto& last_note = outcome.results.notes.back();
  CHECK(last_note.first == "failed");
  CHECK(last_note.second.starts_with("full lr=1e+06, seed 153476998, epoch "));
  int epochs = 0;
  const StudyOutcome again = run_study(study, {.out = folder.path, .threads = 1},
                                       {nullptr, [&](const StudyProgress&) { ++epochs; }});
  CHECK(epochs == 0);
  CHECK(again.results.notes.back() == last_note);
  CHECK(text_of(study, again) == text_of(study, outcome));
}

TEST_CASE("study engine: results of another study or another code are refused") {
  const Study study = small_study("attention,epochs,seeds", "full,1,1");
  const Folder folder;
  run_study(study, {.out = folder.path, .threads = 1});
  const auto refuses = [&](const Study& other, const char* message) {
    CHECK_THROWS_WITH_AS(run_study(other, {.out = folder.path, .threads = 1}),
                         doctest::Contains(message), InputError);
  };
  refuses(small_study("attention,epochs,seeds,lr", "full,1,1,0.2"), "results of another study");
  const std::string origin = text_of(folder.path / "study.txt");
  const auto change = [&](const std::string& from, const std::string& to) {
    std::string changed = origin;
    changed.replace(changed.find(from), from.size(), to);
    std::ofstream(folder.path / "study.txt") << changed;
  };
  change("results-version: 1", "results-version: 999");
  refuses(study, "version 999 of the code");
  change("relu sgd: 0.", "relu sgd: 1.");
  refuses(study, "computes other numbers");
  change("first-date: ", "first-date ");
  refuses(study, "study.txt, line 2: ");
  std::ofstream(folder.path / "study.txt") << origin;

  // Damaged results are named, with what to do.
  const fs::path run = folder.path / "runs" / study.runs[0].folder;
  std::ofstream(run / "metrics.csv") << "epoch,seed\n";
  refuses(study, "metrics.csv, line 1: ");
  refuses(study, "to make this run again");
  fs::remove_all(run);
  CHECK(run_study(study, {.out = folder.path, .threads = 1}).is_over);
}

TEST_CASE("study engine: on a device a shard takes whole groups, elsewhere runs") {
  const Study study = small_study("attention,k,lr,epochs,seeds", "full|topk|banded,3,0.1|0.2,4,5");
  const auto variants_of = [&](const StudyOptions& options) {
    std::map<size_t, int> runs;
    for (const size_t i : plan_study(study, options).runs) ++runs[study.runs[i].variant / 2];
    return runs;
  };
  std::map<size_t, int> all;
  for (int shard = 1; shard <= 2; ++shard) {
    const auto runs = variants_of({.shard = shard, .shards = 2, .device_elsewhere = "cuda"});
    for (const auto& [group, count] : runs) {  // both rates of a mechanism, all seeds
      CHECK(count == 10);
      all[group] += count;
    }
    CHECK(variants_of({.shard = shard, .shards = 2}).size() == 3);
  }
  CHECK(all == std::map<size_t, int>{{0, 10}, {1, 10}, {2, 10}});
  // More shards than groups: a group is torn only then, and nothing is lost or made twice.
  int runs = 0;
  for (int shard = 1; shard <= 5; ++shard)
    for (const auto& [group, count] :
         variants_of({.shard = shard, .shards = 5, .device_elsewhere = "cuda"})) {
      CHECK(count >= 5);
      runs += count;
    }
  CHECK(runs == 30);
}

TEST_CASE("scheduler: at most so many runs are open at once, and a failure can be handled") {
  const RunSettings s = small_study("attention,epochs", "full,3").variants[0].settings;
  const auto data = make_run_data(s, 1);
  std::atomic<int> open{0}, most{0};
  std::vector<Job> jobs;
  for (uint64_t seed = 0; seed < 7; ++seed)
    jobs.push_back({3, [&, seed] {
                      const int now = ++open;
                      for (int m = most; m < now && !most.compare_exchange_weak(m, now);) continue;
                      return std::shared_ptr<Run>(new Run(s, seed, data), [&](Run* run) {
                        --open;
                        delete run;
                      });
                    }});
  const std::atomic<bool> never{false};
  std::atomic<int> rows{0};
  run_side_by_side(jobs, 3, 2, never,
                   {[&](size_t, const Run&, auto row) { rows += row.has_value(); }});
  CHECK(rows == 21);
  CHECK(open == 0);
  CHECK(most >= 1);
  CHECK(most <= 2);
  JobEvents events;
  events.after_epoch = [&](size_t job, const Run&, auto) {
    if (job == 2) throw RunError("job 2");
  };
  CHECK_THROWS_AS(run_side_by_side(jobs, 2, 7, never, events), RunError);
  std::vector<size_t> failed;
  events.failed = [&](size_t job, const RunError&) { failed.push_back(job); };
  run_side_by_side(jobs, 2, 7, never, events);
  CHECK(failed == std::vector<size_t>{2});
}

// When one of these numbers changes, the same settings give other results than before: raise
// results_version in src/train/probe.h, so that old results are not mixed with new ones.
TEST_CASE("probe: what version 1 of the results computes") {
  CHECK(results_version == 1);
  struct Recorded {
    const char* columns;
    const char* values;
    const char* name;
    double loss;
  };
  const Recorded recorded[] = {
      {"attention", "full", "even-pairs full relu sgd", 0.69893839},
      {"task,attention,k,activation", "parity,topk,5,gelu", "parity topk gelu sgd", 0.70159386},
      {"task,attention,k,optimizer", "list-operations,banded,5,adam",
       "list-operations banded relu adam", 2.2250105},
      {"task,attention,k,global-tokens,activation", "cycle-navigation,block,5,3,mish",
       "cycle-navigation block+global mish sgd", 1.5406493},
      {"task,attention,k", "solve-equation,random,5", "solve-equation random relu sgd", 1.5315742},
      {"task,attention,k", "stack-manipulation,bottomk,5", "stack-manipulation bottomk relu sgd",
       0.85682167},
      {"task,attention", "modular-arithmetic,full", "modular-arithmetic full relu sgd", 1.5377253},
      {"task,attention", "missing-duplicate,full", "missing-duplicate full relu sgd", 0.74124656},
  };
  for (const Recorded& r : recorded) {
    const RunSettings s =
        parse_study(str(r.columns, "\n", r.values, "\n"), "t").variants[0].settings;
    CHECK(probe_name(s) == r.name);
    const double loss = probe_loss(s);
    CAPTURE(loss);
    CHECK_MESSAGE(same_probe(loss, r.loss), r.name, " ", number_text(loss));
  }
  CHECK(!same_probe(1, 1.001));
  CHECK(same_probe(std::nan(""), std::nan("")));
  CHECK(!same_probe(1, std::nan("")));
}
