// Runs on a device while other things go on there: the evaluation of an epoch beside the next one's
// steps, and parties beside each other. Whatever stops or fails on the way, no run notices.
#include <doctest/doctest.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <limits>
#include <mutex>

#include "cuda/device/device.h"
#include "cuda/stepper/cuda_device.h"
#include "train/scheduler.h"

namespace focus::test {

TEST_SUITE_BEGIN("training");  // slow: tests/run.sh runs them beside the others

namespace {

const std::atomic<bool> never{false};

// For a list of kernels ("off") or for the one launch, which takes wider models and long to
// emulate.
RunSettings small_run(const std::string& form, Pattern pattern = Pattern::topk) {
  RunSettings s;
  s.attention = pattern, s.k = uses_k(pattern) ? 2 : 0;
  s.blocks = 1, s.d_model = 6, s.d_mlp = 10, s.length = 5;
  if (form == "one") s.d_model = s.d_mlp = 64;
  s.train_size = 3, s.val_size = 2, s.batch = 2, s.epochs = 3;  // the last batch has one row
  s.dropout = 0.1, s.lr = 0.1;
  return s;
}

// A device that tells of its steppers' calls, and may answer for them.
struct Watched : gpu::CudaDevice {
  std::function<void()> on_stepper = [] {};
  std::function<void(std::vector<StepsMade>&)> after_train = [](auto&) {};
  std::function<void()> before_evaluation = [] {};
  std::function<void(std::optional<std::vector<Evaluation>>&)> after_evaluation = [](auto&) {};

  struct WatchedStepper : Stepper {
    Watched& watcher;
    std::unique_ptr<Stepper> own;
    WatchedStepper(Watched& w, std::unique_ptr<Stepper> s) : watcher(w), own(std::move(s)) {}

    void load(int run, const Model<float>& m, const Optimizer<float>& o) override {
      own->load(run, m, o);
    }
    void store(int run, Model<float>& m, Optimizer<float>& o) const override {
      own->store(run, m, o);
    }
    void set_plane(const Model<float>& m, const Direction& X, const Direction& Y) override {
      own->set_plane(m, X, Y);
    }
    void move_to(const std::vector<PlanePoint>& points) override { own->move_to(points); }
    std::vector<StepsMade> train(const std::vector<Epoch>& epochs, int first, int count,
                                 const std::atomic<bool>& stop) override {
      std::vector<StepsMade> made = own->train(epochs, first, count, stop);
      watcher.after_train(made);
      return made;
    }
    void take_snapshot() override { own->take_snapshot(); }
    std::optional<std::vector<Evaluation>> evaluate_snapshot(
        Split split, const std::atomic<bool>& stop) override {
      watcher.before_evaluation();
      auto result = own->evaluate_snapshot(split, stop);
      watcher.after_evaluation(result);
      return result;
    }
    std::vector<Gradients> gradients(const std::vector<Epoch>& epochs, int step) override {
      return own->gradients(epochs, step);
    }
    std::vector<AttentionInputs> attention_inputs(int run, Split split, int first,
                                                  int count) override {
      return own->attention_inputs(run, split, first, count);
    }
  };
  std::unique_ptr<Stepper> make_stepper(const StepSettings& settings,
                                        std::vector<StepRun> runs) override {
    on_stepper();
    return std::make_unique<WatchedStepper>(*this,
                                            CudaDevice::make_stepper(settings, std::move(runs)));
  }
};

// Counts up; waits for a count that another thread reaches, but not for ever.
class Counter {
 public:
  void add() {
    const std::lock_guard lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  bool reaches(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return count_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

struct Trained {
  std::deque<Run> runs;
  std::vector<EpochMetrics> rows;
  std::vector<std::string> failures;
  std::vector<Safetensors> checkpoints;  // the last that was told of each run

  Trained(const RunSettings& s, const std::vector<uint64_t>& seeds) : checkpoints(seeds.size()) {
    for (const uint64_t seed : seeds) runs.emplace_back(s, seed, make_run_data(s, seed));
  }
  void go(Device& device, const std::string& form, int epochs,
          const std::atomic<bool>& stop = never) {
    std::vector<size_t> all(runs.size());
    for (size_t r = 0; r < all.size(); ++r) all[r] = r;
    run_together({&device}, jobs_of(runs, epochs), {{all}}, form, stop,
                 {[&](size_t job, Run& run, std::optional<EpochMetrics> row) {
                    if (row) rows.push_back(*row), rows.back().seconds = 0;
                    checkpoints[job] = run.checkpoint();
                  },
                  [&](size_t, const RunError& error) { failures.push_back(error.what()); }});
  }
  std::string state(size_t run) const { return runs[run].checkpoint().serialize(); }
};

std::string text_of(const std::vector<EpochMetrics>& rows, uint64_t seed) {
  std::string text;
  for (const EpochMetrics& r : rows)
    if (r.seed == seed)
      text += str(r.epoch, ",", r.train_loss, ",", r.train_accuracy, ",", r.val_loss, ",",
                  r.val_accuracy, "\n");
  return text;
}

}  // namespace

TEST_CASE("together: an epoch is evaluated while the next one's steps are made, as it was") {
  for (const char* form : {"off", "one"}) {
    INFO(form);
    Trained wanted(small_run(form), {3, 4});
    {  // one after the other
      gpu::CudaDevice device;
      StepSettings settings = wanted.runs[0].step_settings();
      settings.form = form;
      const auto stepper =
          device.make_stepper(settings, {wanted.runs[0].step_run(), wanted.runs[1].step_run()});
      for (int r = 0; r < 2; ++r) wanted.runs[size_t(r)].load_into(*stepper, r);
      for (int epoch = 0; epoch < 3; ++epoch)
        for (const EpochResult& result :
             run_epoch(*stepper, {&wanted.runs[0], &wanted.runs[1]}, never))
          wanted.rows.push_back(result.row.value());
    }
    // Here all evaluation of an epoch waits until the next one's steps are made.
    Trained got(small_run(form), {3, 4});
    Watched device;
    Counter trained;
    std::atomic<int> evaluations{0};
    device.after_train = [&](auto&) { trained.add(); };
    device.before_evaluation = [&] {
      const int epoch = evaluations++ / 2;
      CHECK(trained.reaches(std::min(epoch + 2, 3)));
    };
    got.go(device, form, 3);
    for (const uint64_t seed : {3, 4}) CHECK(text_of(got.rows, seed) == text_of(wanted.rows, seed));
    for (const size_t r : {0, 1}) CHECK(got.state(r) == wanted.state(r));
  }
}

TEST_CASE("together: stopped or killed at any moment of that, gone on with to the same bytes") {
  gpu::CudaDevice honest;
  Trained whole(small_run("off"), {3});
  whole.go(honest, "off", 3);
  for (const bool killed : {false, true})
    for (int moment = 0; moment < 15; ++moment) {
      INFO((killed ? "killed" : "stopped"), ", moment ", moment);
      struct Kill {};
      Watched device;
      std::atomic<bool> stop{false};
      std::atomic<int> moments{0};
      const auto pass = [&] {
        if (moments++ != moment) return;
        if (killed) throw Kill();
        stop = true;
      };
      device.after_train = [&](auto&) { pass(); };
      device.before_evaluation = pass;
      device.after_evaluation = [&](auto&) { pass(); };
      Trained first(small_run("off"), {3}), second(small_run("off"), {3});
      try {
        first.go(device, "off", 3, stop);
      } catch (const Kill&) {
      }
      // The second goes on with what the first has told.
      const Safetensors& told = first.checkpoints[0];
      if (told.metadata.count("seed"))
        second.runs[0].restore(Safetensors::parse(told.serialize(), "checkpoint"));
      CHECK(int(first.rows.size()) == second.runs[0].epochs_done());
      second.go(honest, "off", 3);
      CHECK(second.state(0) == whole.state(0));
      first.rows.insert(first.rows.end(), second.rows.begin(), second.rows.end());
      CHECK(text_of(first.rows, 3) == text_of(whole.rows, 3));
    }
}

TEST_CASE(
    "together: a NaN in the next epoch's steps, or in the evaluation beside them, ends one run") {
  gpu::CudaDevice honest;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const char* form : {"off", "one"})
    for (const bool in_steps : {true, false}) {
      INFO(form, in_steps ? ", steps" : ", evaluation");
      Trained alone(small_run(form), {4}), one_epoch(small_run(form), {3}),
          both(small_run(form), {3, 4});
      alone.go(honest, form, 3), one_epoch.go(honest, form, 1);
      Watched device;
      int calls = 0, evaluations = 0;
      if (in_steps)
        device.after_train = [&](std::vector<StepsMade>& made) {
          if (++calls == 2) made[0] = {{1, nan}, true, 1};
        };
      else
        device.after_evaluation = [&](std::optional<std::vector<Evaluation>>& result) {
          if (++evaluations == 1) (*result)[0].loss = double(nan);
        };
      both.go(device, form, 3);
      REQUIRE(both.failures.size() == 1);
      const std::string where = in_steps ? "seed 3, epoch 2, step 2:" : "seed 3, epoch 1: the loss";
      CHECK_MESSAGE(both.failures[0].find(where) == 0, both.failures[0]);
      CHECK(text_of(both.rows, 3) == (in_steps ? text_of(one_epoch.rows, 3) : ""));
      if (in_steps) CHECK(both.state(0) == one_epoch.state(0));
      CHECK(text_of(both.rows, 4) == text_of(alone.rows, 4));
      CHECK(both.state(1) == alone.state(0));
    }
}

namespace {

// Two parties of one run each, which differ in their attention.
struct TwoParties {
  std::deque<Run> runs;
  std::vector<EpochMetrics> rows;
  std::mutex mutex;

  explicit TwoParties(const char* form) {
    for (const Pattern pattern : {Pattern::topk, Pattern::full}) {
      const RunSettings s = small_run(form, pattern);
      runs.emplace_back(s, runs.size() + 3, make_run_data(s, 3));
    }
  }
  void go(Device& device, const char* form, double share) {
    run_together({&device}, jobs_of(runs, 3), {{{0}, share}, {{1}, share}}, form, never,
                 {[&](size_t, Run&, std::optional<EpochMetrics> row) {
                   const std::lock_guard lock(mutex);
                   rows.push_back(*row);
                 }});
  }
  std::string state(size_t run) const { return runs[run].checkpoint().serialize(); }
};

}  // namespace

TEST_CASE("together: parties that fill half of a device are made beside each other, as alone") {
  for (const char* form : {"off", "one"}) {
    gpu::CudaDevice honest;
    TwoParties apart(form), beside(form);
    apart.go(honest, form, 1);
    Watched device;
    Counter steppers;
    device.on_stepper = [&] { steppers.add(); };
    device.after_train = [&](auto&) { CHECK(steppers.reaches(2)); };
    beside.go(device, form, 0.5);
    for (const size_t r : {0, 1}) {
      CHECK(beside.state(r) == apart.state(r));
      CHECK(text_of(beside.rows, 3 + r) == text_of(apart.rows, 3 + r));
    }
  }
}

TEST_CASE("together: parties that the memory does not hold beside each other go one by one") {
  if (!gpu::emulated()) return;
  gpu::CudaDevice honest;
  const size_t unlimited = size_t{1} << 38;
  TwoParties apart("off"), beside("off"), nowhere("off");
  gpu::limit_memory(unlimited);
  apart.go(honest, "off", 1);
  const size_t for_one = gpu::limit_memory(unlimited);
  gpu::limit_memory(for_one + for_one / 4);
  beside.go(honest, "off", 0.5);
  gpu::limit_memory(for_one / 3);
  CHECK_THROWS_AS(nowhere.go(honest, "off", 0.5), OutOfMemory);
  gpu::limit_memory(unlimited);
  for (const size_t r : {0, 1}) CHECK(beside.state(r) == apart.state(r));
}

TEST_SUITE_END();

}  // namespace focus::test
