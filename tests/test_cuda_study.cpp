// Studies on a device: many settings share its kernels, and no run notices.
#include <doctest/doctest.h>
#include <unistd.h>

#include <deque>
#include <filesystem>

#include "cuda/device/device.h"
#include "cuda/stepper/cuda_device.h"
#include "error.h"
#include "files/atomic_file.h"
#include "study/engine.h"
#include "study/estimate.h"

namespace focus::test {

TEST_SUITE_BEGIN("training");  // slow: tests/run.sh runs them beside the others

namespace {

namespace fs = std::filesystem;

// The second kind is one that one launch is made for.
const char* recorded = "length,d-model,d-mlp,heads,blocks,train-size,val-size,batch,epochs\n";
const char* sizes = "7,6,10,2,1,19,5,8,3\n";
const char* launch_sizes = "7,64,64,1,1,11,5,8,2\n";

Study study_of(const std::string& columns, const std::string& values, const char* of_size = sizes) {
  return parse_study(columns + "," + recorded + values + "," + of_size, "t");
}

std::string text_of(const Study& study, const StudyOutcome& outcome) {
  return results_text(study, {}, outcome.results.variants);
}

struct Folder {
  fs::path path = fs::temp_directory_path() / str("focus-device-study-", ::getpid());
  Folder() { fs::remove_all(path); }
  ~Folder() { fs::remove_all(path); }
};

// Each variant's curve for its first seed.
std::vector<std::vector<EpochMetrics>> curves_of(const StudyOutcome& outcome) {
  std::vector<std::vector<EpochMetrics>> curves;
  for (const StudiedVariant& v : outcome.results.variants) curves.push_back(v.curves.at(0));
  return curves;
}

bool same(const std::vector<EpochMetrics>& a, const std::vector<EpochMetrics>& b) {
  if (a.size() != b.size() || a.empty()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i].train_loss != b[i].train_loss || a[i].val_loss != b[i].val_loss ||
        a[i].train_accuracy != b[i].train_accuracy || a[i].epoch != b[i].epoch)
      return false;
  return true;
}

}  // namespace

TEST_CASE("device study: each run is what it is alone, whatever shares the device with it") {
  gpu::CudaDevice device;
  for (const char* of_size : {sizes, launch_sizes}) {
    const Study all = study_of("attention,k,lr,seeds", "full|topk,3,0.1|0.5,2", of_size);
    const StudyOutcome together = run_study(all, {.devices = {&device}});
    REQUIRE(together.is_over);
    REQUIRE(together.results.variants.size() == 4);
    int v = 0;
    for (const char* attention : {"full", "topk"})
      for (const char* lr : {"0.1", "0.5"}) {
        const Study one =
            study_of("attention,k,lr,seeds", str(attention, ",3,", lr, ",1"), of_size);
        const StudyOutcome alone = run_study(one, {.devices = {&device}});
        INFO(str(attention, ", lr ", lr));
        CHECK(same(together.results.variants[size_t(v)].curves.at(0),
                   alone.results.variants.at(0).curves.at(0)));
        ++v;
      }
    // Runs of other rates and seeds are not the same run.
    CHECK(!same(curves_of(together)[0], curves_of(together)[1]));
    CHECK(!same(together.results.variants[0].curves[0], together.results.variants[0].curves[1]));
  }
}

TEST_CASE("device study: queries and keys of their own size and rate, beside others") {
  gpu::CudaDevice device;
  for (const char* of_size : {sizes, launch_sizes}) {
    const std::string columns = "qk-scale,qk-rate,freeze-qk,seeds";
    const char* rows[] = {"1,1,no,1", "2,4,no,1", "1,1,yes,1"};
    std::string table = columns + "," + recorded;
    for (const char* row : rows) table += str(row, ",", of_size);
    const StudyOutcome together = run_study(parse_study(table, "t"), {.devices = {&device}});
    for (size_t v = 0; v < 3; ++v) {
      const StudyOutcome alone =
          run_study(study_of(columns, rows[v], of_size), {.devices = {&device}});
      CHECK(same(curves_of(together)[v], curves_of(alone)[0]));
    }
    CHECK(!same(curves_of(together)[0], curves_of(together)[1]));
    CHECK(!same(curves_of(together)[0], curves_of(together)[2]));
  }
}

TEST_CASE("device study: a run that ends with NaN does not end its company") {
  gpu::CudaDevice device;
  for (const char* of_size : {sizes, launch_sizes}) {
    const std::string columns = "lr,clip,seeds";
    const StudyOutcome mixed =
        run_study(study_of(columns, "0.1|1e6|0.2,0,1", of_size), {.devices = {&device}});
    const StudyOutcome good =
        run_study(study_of(columns, "0.1|0.2,0,1", of_size), {.devices = {&device}});
    CHECK(mixed.is_over);
    REQUIRE(mixed.results.variants.size() == 3);
    CHECK(same(curves_of(mixed)[0], curves_of(good)[0]));
    CHECK(same(curves_of(mixed)[2], curves_of(good)[1]));
    CHECK(curves_of(mixed)[1].size() < curves_of(mixed)[0].size());
    bool told = false;
    for (const auto& [key, value] : mixed.results.notes)
      told = told || (key == "failed" && value.find("try a smaller --lr") != std::string::npos);
    CHECK(told);
  }
}

TEST_CASE("device study: what the memory cannot hold together goes one after another") {
  if (!gpu::emulated()) return;
  gpu::CudaDevice device;
  const size_t unlimited = size_t{1} << 38;
  for (const char* of_size : {sizes, launch_sizes}) {
    const Study three = study_of("lr,seeds", "0.1|0.3|0.5,1", of_size);
    const Study one = study_of("lr,seeds", "0.1,1", of_size);
    gpu::limit_memory(unlimited);
    run_study(one, {.devices = {&device}});
    const size_t for_one = gpu::limit_memory(unlimited);
    const StudyOutcome together = run_study(three, {.devices = {&device}});
    const size_t for_three = gpu::limit_memory(unlimited);
    REQUIRE(for_one < for_three);
    gpu::limit_memory((2 * for_one + 3 * for_three) / 5);
    const StudyOutcome apart = run_study(three, {.devices = {&device}});
    CHECK(apart.is_over);
    CHECK(text_of(three, apart) == text_of(three, together));
    gpu::limit_memory(for_one / 2);
    CHECK_THROWS_WITH_AS(run_study(three, {.devices = {&device}}), doctest::Contains("out of GPU"),
                         OutOfMemory);
    gpu::limit_memory(unlimited);
  }
}

TEST_CASE("device study: stopped, gone on with, and never mixed with the CPU's runs") {
  gpu::CudaDevice device;
  const Folder folder;
  const Study study = study_of("attention,k,lr,seeds", "topk,3,0.1|0.5,2");
  std::atomic<bool> stop{false};
  int epochs = 0;
  StudyObserver observer{.stop = &stop};
  observer.on_epoch = [&](const StudyProgress&) { stop = ++epochs >= 5; };
  const StudyOptions options{.out = folder.path, .devices = {&device}};
  CHECK(!run_study(study, options, observer).shard_is_over);
  const StudyPlan plan = plan_study(study, options);
  CHECK(std::count(plan.over.begin(), plan.over.end(), true) < 4);
  const StudyOutcome rest = run_study(study, options);
  CHECK(rest.is_over);
  CHECK(text_of(study, rest) == text_of(study, run_study(study, {.devices = {&device}})));

  std::string message;
  try {
    run_study(study, {.out = folder.path});
  } catch (const InputError& error) {
    message = error.what();
  }
  CHECK(message.find("were made with --device cuda, not cpu") != std::string::npos);
}

namespace {

// So many emulated GPUs, of which one notes what it is given. An heir can fail.
struct Noting : gpu::CudaDevice {
  using CudaDevice::CudaDevice;
  int steppers = 0;
  size_t most_runs = 0;
  Pattern fails_at = Pattern::random;
  std::unique_ptr<Stepper> make_stepper(const StepSettings& settings,
                                        std::vector<StepRun> runs) override {
    if (settings.model.attention.pattern == fails_at) throw DeviceLost("no such pattern here");
    ++steppers, most_runs = std::max(most_runs, runs.size());
    return CudaDevice::make_stepper(settings, std::move(runs));
  }
};

struct Gpus {
  std::deque<Noting> all;
  explicit Gpus(int count) {
    gpu::pretend_devices(count);
    for (int number = 0; number < count; ++number) all.emplace_back(number);
  }
  ~Gpus() { gpu::pretend_devices(1); }
  std::vector<Device*> devices() {
    std::vector<Device*> pointers;
    for (Noting& one : all) pointers.push_back(&one);
    return pointers;
  }
  int steppers() const {
    int sum = 0;
    for (const Noting& one : all) sum += one.steppers;
    return sum;
  }
};

// Three groups of four runs, of two epochs each.
const char* groups = "full|topk|banded,3,0.1|0.5,2";
const char *tiny = "5,4,4,1,1,6,3,3,2\n", *tiny_launch = "5,64,64,1,1,4,2,2,1\n";
Study study_of_groups(const char* of_size = tiny) {
  return study_of("attention,k,lr,seeds", groups, of_size);
}

}  // namespace

TEST_CASE("device study: several GPUs make the runs that one makes, to the bit") {
  if (!gpu::emulated()) return;
  for (const char* of_size : {tiny, tiny_launch}) {
    const Study study = study_of_groups(of_size);
    Gpus one(1);
    const std::string wanted = text_of(study, run_study(study, {.devices = one.devices()}));
    CHECK(one.all[0].most_runs == 4);
    for (const int count : {2, 5}) {
      if (count == 2 && of_size == tiny_launch) continue;
      Gpus several(count);
      const StudyOutcome outcome = run_study(study, {.devices = several.devices()});
      CHECK(outcome.is_over);
      CHECK(text_of(study, outcome) == wanted);
      CHECK(several.steppers() >= 3);  // whole groups, or parts of them
      CHECK(several.steppers() <= 12);
    }
  }
}

TEST_CASE("device study: a group is split by seeds where GPUs would be idle, else whole") {
  if (!gpu::emulated()) return;
  const Study study = study_of("attention,k,seeds", "topk,3,5", tiny);
  Gpus one(1);
  const std::string wanted = text_of(study, run_study(study, {.devices = one.devices()}));
  Gpus two(2);
  const StudyObserver observer{.costs = {{1, 1}}};
  CHECK(text_of(study, run_study(study, {.devices = two.devices()}, observer)) == wanted);
  CHECK(two.steppers() == 2);
  CHECK(std::max(two.all[0].most_runs, two.all[1].most_runs) == 3);
  // Where five take as long as one, half of them would end no earlier.
  Gpus others(2);
  const StudyObserver cheap{.costs = {{1, 0}}};
  CHECK(text_of(study, run_study(study, {.devices = others.devices()}, cheap)) == wanted);
  CHECK(others.steppers() == 1);
}

TEST_CASE("device study: a GPU that fails loses nothing; its runs go on on the others") {
  if (!gpu::emulated()) return;
  const Study study = study_of_groups();
  Gpus one(1);
  const std::string wanted = text_of(study, run_study(study, {.devices = one.devices()}));
  size_t lost = 0;
  for (const uint64_t launches : {1, 150}) {
    const Folder folder;
    Gpus three(3);
    gpu::break_device(1, launches);
    std::vector<std::string> notes;
    StudyObserver observer;
    observer.on_note = [&](const std::string& line) { notes.push_back(line); };
    const StudyOutcome outcome =
        run_study(study, {.out = folder.path, .devices = three.devices()}, observer);
    CHECK(outcome.is_over);
    CHECK(text_of(study, outcome) == wanted);
    REQUIRE(notes.size() <= 1);
    lost += notes.size();
    for (const std::string& note : notes)
      CHECK(note ==
            "GPU 1 (CPU emulation) is lost: CUDA: emulated GPU 1 has failed; its runs go on "
            "elsewhere");
  }
  CHECK(lost > 0);
}

TEST_CASE("device study: when the last GPU fails, what is made is kept, and the study goes on") {
  if (!gpu::emulated()) return;
  const Study study = study_of_groups();
  Gpus one(1);
  const std::string wanted = text_of(study, run_study(study, {.devices = one.devices()}));
  const Folder folder;
  Gpus two(2);
  gpu::break_device(0, 350), gpu::break_device(1, 400);  // an epoch takes less than half
  const StudyOptions options{.out = folder.path, .devices = two.devices()};
  std::string message;
  try {
    run_study(study, options);
  } catch (const RunError& error) {
    message = error.what();
  }
  CHECK(message.starts_with("GPU "));
  CHECK(message.ends_with(" run(s) are not finished, and can go on"));
  int epochs = 0;
  for (const int done : plan_study(study, options).epochs_done) epochs += done;
  CHECK(epochs > 0);
  CHECK(epochs < 2 * 12);
  gpu::pretend_devices(2);
  StudyObserver observer;
  observer.on_epoch = [&](const StudyProgress& p) { epochs += p.row != nullptr; };
  CHECK(text_of(study, run_study(study, options, observer)) == wanted);
  CHECK(epochs == 2 * 12);  // none was made again
}

TEST_CASE("device study: runs at which two GPUs fail cost no third one, and are named") {
  if (!gpu::emulated()) return;
  const Study study = study_of_groups();
  Gpus three(3);
  for (Noting& device : three.all) device.fails_at = Pattern::topk;
  int epochs = 0;
  std::vector<std::string> notes;
  StudyObserver observer;
  observer.costs = {{1, 0}, {1, 0}, {9, 0}, {9, 0}, {1, 0}, {1, 0}};
  observer.on_epoch = [&](const StudyProgress& p) { epochs += p.row != nullptr; };
  observer.on_note = [&](const std::string& line) { notes.push_back(line); };
  CHECK_THROWS_WITH_AS(run_study(study, {.devices = three.devices()}, observer),
                       doctest::Contains("4 run(s) are not finished"), DeviceLost);
  CHECK(epochs == 2 * 8);
  REQUIRE(notes.size() == 2);
  CHECK(notes[1].ends_with("; its runs wait"));
}

TEST_CASE("device study: a stop on several GPUs, and on again on another number of them") {
  if (!gpu::emulated()) return;
  const Study study = study_of_groups();
  Gpus one(1);
  const std::string wanted = text_of(study, run_study(study, {.devices = one.devices()}));
  const Folder folder;
  std::atomic<bool> stop{false};
  int epochs = 0;
  StudyObserver observer{.stop = &stop};
  observer.on_epoch = [&](const StudyProgress& p) {
    epochs += p.row != nullptr;
    if (epochs % 5 == 4) stop = true;
  };
  for (const int count : {2, 3}) {
    Gpus some(count);
    stop = false;
    CHECK(!run_study(study, {.out = folder.path, .devices = some.devices()}, observer).is_over);
  }
  Gpus four(4);
  StudyObserver rest;
  rest.on_epoch = [&](const StudyProgress& p) { epochs += p.row != nullptr; };
  CHECK(text_of(study, run_study(study, {.out = folder.path, .devices = four.devices()}, rest)) ==
        wanted);
  CHECK(epochs == 2 * 12);
}

TEST_CASE("device study: what an epoch costs is measured for runs alone and together") {
  if (!gpu::emulated()) return;
  gpu::CudaDevice device;
  const Study study = study_of("lr,score-scale,freeze-qk,seeds", "0.1|0.5,1|4,yes|no,2", tiny);
  const std::vector<EpochCost> costs = measure_epochs(study, &device);
  REQUIRE(costs.size() == 8);
  CHECK(costs[0].alone > 0);
  CHECK(costs[0].each_more >= 0);
  for (const EpochCost& c : costs) CHECK(c.alone == costs[0].alone);  // measured once
}

TEST_CASE("train: on several GPUs the files that one makes") {
  if (!gpu::emulated()) return;
  known_devices().push_back(
      {"kernels", gpu::device_problem, gpu::device_count,
       [](int n) -> std::unique_ptr<Device> { return std::make_unique<gpu::CudaDevice>(n); }});
  const Folder folder;
  TrainPlan plan;
  plan.settings.attention = Pattern::topk, plan.settings.k = 3;
  plan.settings.d_model = 6, plan.settings.d_mlp = 6, plan.settings.heads = 2;
  plan.settings.blocks = 1, plan.settings.length = 7, plan.settings.batch = 3;
  plan.settings.train_size = 7, plan.settings.val_size = 3, plan.settings.epochs = 2;
  plan.seeds = {3, 4, 8}, plan.device = "kernels";
  fs::create_directories(folder.path);
  const auto trained = [&](const char* name, int gpus) {
    gpu::pretend_devices(3);
    TrainPlan one = plan;
    one.out = folder.path / name, one.gpus = gpus;
    const bool finished = train(one).finished;
    CHECK(finished);
  };
  trained("one", 1), trained("all", 0);
  const auto bytes = [&](const char* name, const char* file) {
    return read_file(folder.path / name / file, 1 << 20);
  };
  for (const char* seed : {"seed-3", "seed-4", "seed-8"})
    CHECK(bytes("all", str(seed, "/last.safetensors").c_str()) ==
          bytes("one", str(seed, "/last.safetensors").c_str()));
  CHECK(bytes("all", "settings.json") == bytes("one", "settings.json"));
  CHECK_THROWS_WITH_AS(trained("four", 4), doctest::Contains("--gpus 4: this machine has 3"),
                       InputError);
  CHECK(!fs::exists(folder.path / "four"));
  gpu::pretend_devices(1);
  known_devices().pop_back();
}

TEST_SUITE_END();

}  // namespace focus::test
