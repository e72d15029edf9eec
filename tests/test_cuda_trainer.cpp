// Training on the device: golden files, the CPU's curves, many runs together, resuming.
#include <doctest/doctest.h>

#include <filesystem>
#include <numeric>

#include "cuda/device/device.h"
#include "cuda/stepper/cuda_device.h"
#include "train/cpu_stepper.h"
#include "train/golden.h"
#include "train/scheduler.h"
#include "train/store.h"

namespace focus::test {

TEST_SUITE_BEGIN("training");  // slow: tests/run.sh runs them beside the others

namespace fs = std::filesystem;

namespace {

RunSettings small_run(Pattern pattern, OptimizerKind optimizer = OptimizerKind::sgd) {
  RunSettings s;
  s.attention = pattern, s.k = uses_k(pattern) ? 3 : 0;
  s.global_tokens = is_positional(pattern) ? 1 : 0;
  s.optimizer = optimizer;
  s.blocks = 1, s.heads = 2, s.d_model = 6, s.d_mlp = 10, s.length = 7;
  s.train_size = 19, s.val_size = 5, s.batch = 8, s.epochs = 2;  // the last batch has three rows
  s.lr = optimizer == OptimizerKind::adam ? 0.003 : 0.5;
  s.dropout = 0.1;
  return s;
}

std::deque<Run> make_runs(const RunSettings& s, const std::vector<uint64_t>& seeds) {
  std::deque<Run> runs;
  for (uint64_t seed : seeds) runs.emplace_back(s, seed, make_run_data(s, seed));
  return runs;
}

std::vector<size_t> all_of(const std::deque<Run>& runs) {
  std::vector<size_t> numbers(runs.size());
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

// form "off": a list of kernels, "one": one launch.
std::vector<EpochMetrics> metrics_of(std::deque<Run>& runs, int epochs,
                                     const std::string& form = "off") {
  gpu::CudaDevice device;
  const std::atomic<bool> never{false};
  std::vector<EpochMetrics> rows;
  run_together({&device}, jobs_of(runs, epochs), {{all_of(runs)}}, form, never,
               {[&](size_t, Run&, std::optional<EpochMetrics> row) { rows.push_back(*row); }});
  return rows;
}

bool same_weights(Run& a, Run& b) {
  for (size_t p = 0; p < a.model().parameters().size(); ++p)
    if (a.model().parameters()[p].value != b.model().parameters()[p].value) return false;
  return true;
}

}  // namespace

TEST_CASE("device: every golden file within its limits") {
  int files = 0;
  gpu::CudaDevice device;
  for (const auto& entry : fs::directory_iterator("tests/golden")) {
    if (entry.path().extension() != ".safetensors") continue;
    ++files;
    for (const GoldenError& e : check_golden(Safetensors::read(entry.path().string()), 1, &device))
      CHECK_MESSAGE(e.ok(), str(entry.path(), ", ", e.name, ": ", e.error, ", limit ", e.limit));
  }
  CHECK(files > 10);
}

TEST_CASE("device: an epoch's losses and accuracies are the CPU's but for rounding") {
  for (OptimizerKind optimizer : {OptimizerKind::sgd, OptimizerKind::adam})
    for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::block, Pattern::topk,
                            Pattern::bottomk, Pattern::random}) {
      if (optimizer == OptimizerKind::adam && pattern != Pattern::topk) continue;
      const RunSettings s = small_run(pattern, optimizer);
      std::deque<Run> on_device = make_runs(s, {5}), on_cpu = make_runs(s, {5});
      const EpochMetrics got = metrics_of(on_device, 1).at(0);
      Workers workers;
      Tape<float> tape(workers);
      const EpochMetrics wanted = run_epoch(on_cpu[0], tape, std::atomic<bool>{false}).value();
      const std::string name = str(name_of(pattern), ", ", name_of(optimizer));
      CHECK_MESSAGE(std::abs(got.train_loss - wanted.train_loss) < 2e-5 * wanted.train_loss,
                    str(name, ": ", got.train_loss, ", CPU ", wanted.train_loss));
      CHECK_MESSAGE(std::abs(got.val_loss - wanted.val_loss) < 2e-5 * wanted.val_loss,
                    str(name, ": ", got.val_loss, ", CPU ", wanted.val_loss));
      CHECK(got.epoch == 1);
    }
}

TEST_CASE("device: larger, faster and frozen queries and keys are the CPU's") {
  for (const bool one_launch : {false, true})
    for (OptimizerKind optimizer : {OptimizerKind::sgd, OptimizerKind::adam})
      for (const bool frozen : {false, true}) {
        RunSettings s = small_run(Pattern::topk, optimizer);
        if (one_launch) s.heads = 1, s.d_model = s.d_mlp = 64;
        s.qk_scale = 1.5, s.qk_rate = frozen ? 1 : 3, s.freeze_qk = frozen, s.score_scale = 2;
        std::deque<Run> start = make_runs(s, {5}), on_device = make_runs(s, {5}),
                        on_cpu = make_runs(s, {5});
        const EpochMetrics got = metrics_of(on_device, 1, one_launch ? "one" : "off").at(0);
        Workers workers;
        Tape<float> tape(workers);
        const EpochMetrics wanted = run_epoch(on_cpu[0], tape, std::atomic<bool>{false}).value();
        INFO(str(name_of(optimizer), frozen ? ", frozen" : "", one_launch ? ", one launch" : ""));
        CHECK(std::abs(got.train_loss - wanted.train_loss) < 5e-5 * wanted.train_loss);
        CHECK(std::abs(got.val_loss - wanted.val_loss) < 5e-5 * wanted.val_loss);
        for (size_t p = 0; p < start[0].model().parameters().size(); ++p) {
          const Parameter<float>& before = start[0].model().parameters()[p];
          const bool is_qk = before.name.find("W_q") != std::string::npos ||
                             before.name.find("W_k") != std::string::npos;
          const bool kept = on_device[0].model().parameters()[p].value == before.value;
          // (In exact arithmetic W_k's bias has no gradient: it may stay by itself.)
          if (frozen || before.name.find("W_k.bias") == std::string::npos)
            CHECK_MESSAGE(kept == (frozen && is_qk), before.name);
          if (is_qk && optimizer == OptimizerKind::adam)
            CHECK((on_device[0].optimizer().second_moments()[p] ==
                   std::vector<float>(before.value.size())) == frozen);
        }
      }
}

TEST_CASE("device: runs that are trained together are, to the bit, those trained alone") {
  for (Pattern pattern : {Pattern::full, Pattern::topk}) {
    RunSettings s = small_run(pattern);
    s.blocks = 2;
    const std::vector<uint64_t> seeds{3, 1ull << 40, 11};
    std::deque<Run> together = make_runs(s, seeds);
    const std::vector<EpochMetrics> rows = metrics_of(together, 2);
    REQUIRE(rows.size() == 6);
    for (size_t i = 0; i < seeds.size(); ++i) {
      std::deque<Run> alone = make_runs(s, {seeds[i]});
      const std::vector<EpochMetrics> own = metrics_of(alone, 2);
      CHECK(same_weights(together[i], alone[0]));
      for (size_t epoch = 0; epoch < 2; ++epoch) {
        CHECK(rows[3 * epoch + i].train_loss == own[epoch].train_loss);
        CHECK(rows[3 * epoch + i].val_accuracy == own[epoch].val_accuracy);
      }
    }
  }
}

TEST_CASE("device: stopped in an epoch, saved, restored and continued, to the same bytes") {
  const RunSettings s = small_run(Pattern::topk, OptimizerKind::adam);
  std::deque<Run> whole = make_runs(s, {5, 6});
  metrics_of(whole, 2);
  std::deque<Run> first = make_runs(s, {5, 6});
  gpu::CudaDevice device;
  const std::atomic<bool> stop{true};
  run_together({&device}, jobs_of(first, 2), {{all_of(first)}}, "off", stop,
               {[](size_t, Run&, std::optional<EpochMetrics>) {}});
  CHECK(first[0].steps_in_epoch() == 0);
  metrics_of(first, 1);
  // A run that is behind the other catches up.
  std::deque<Run> second = make_runs(s, {5, 6});
  second[0].restore(Safetensors::parse(first[0].checkpoint().serialize(), "checkpoint"));
  CHECK(second[0].epochs_done() == 1);
  metrics_of(second, 2);
  CHECK(same_weights(second[0], whole[0]));
  CHECK(same_weights(second[1], whole[1]));
}

TEST_CASE("device: one launch makes the epochs that the recorded kernels make") {
  for (OptimizerKind optimizer : {OptimizerKind::sgd, OptimizerKind::adam}) {
    RunSettings s = small_run(Pattern::topk, optimizer);
    s.heads = 1, s.d_model = s.d_mlp = 64, s.lr = optimizer == OptimizerKind::sgd ? 0.1 : 0.001;
    std::deque<Run> by_launch = make_runs(s, {5, 6}), recorded = make_runs(s, {5, 6});
    const std::vector<EpochMetrics> got = metrics_of(by_launch, 2, "one");
    const std::vector<EpochMetrics> wanted = metrics_of(recorded, 2);
    REQUIRE(got.size() == wanted.size());
    for (size_t i = 0; i < got.size(); ++i) {
      INFO(str(name_of(optimizer), ", epoch ", got[i].epoch, ": ", got[i].train_loss, ", ",
               wanted[i].train_loss));
      CHECK(std::abs(got[i].train_loss - wanted[i].train_loss) < 1e-4 * wanted[i].train_loss);
      CHECK(std::abs(got[i].val_loss - wanted[i].val_loss) < 1e-4 * wanted[i].val_loss);
      CHECK(got[i].seed == wanted[i].seed);
    }
    // Resumed after an epoch, alone: to the same bits.
    std::deque<Run> first = make_runs(s, {6}), second = make_runs(s, {6});
    metrics_of(first, 1, "one");
    second[0].restore(Safetensors::parse(first[0].checkpoint().serialize(), "checkpoint"));
    metrics_of(second, 2, "one");
    CHECK(same_weights(second[0], by_launch[1]));
    CHECK(second[0].optimizer().steps_taken() == 6);
  }
}

TEST_CASE("device: a NaN stops the run, says where, and leaves it as it was") {
  for (const char* form : {"off", "one"}) {
    RunSettings s = small_run(Pattern::full);
    s.lr = 1e6, s.clip = 0, s.epochs = 3;
    if (form == std::string("one")) s.heads = 1, s.d_model = s.d_mlp = 64;
    std::deque<Run> runs = make_runs(s, {5});
    std::string message;
    try {
      metrics_of(runs, 3, form);
    } catch (const RunError& error) {
      message = error.what();
    }
    CHECK_MESSAGE(message.find("seed 5, epoch 1, step ") == 0, message);
    CHECK(message.find("the last good checkpoint is kept") != std::string::npos);
    CHECK(runs[0].steps_in_epoch() == 0);
  }
}

TEST_SUITE_END();

}  // namespace focus::test
