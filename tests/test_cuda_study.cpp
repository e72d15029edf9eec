// Studies on a device: many settings share its kernels, and no run notices.
#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>

#include "cuda/device/device.h"
#include "cuda/stepper/cuda_device.h"
#include "study/engine.h"

namespace focus::test {

TEST_SUITE_BEGIN("training");  // slow: tests/run.sh runs them beside the others

namespace {

namespace fs = std::filesystem;

// The second kind is one that one launch is made for.
const char* recorded = "length,d-model,d-mlp,heads,blocks,train-size,val-size,batch,epochs\n";
const char* sizes = "7,6,10,2,1,19,5,8,3\n";
const char* launch_sizes = "7,64,64,1,1,19,5,8,2\n";

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

TEST_SUITE_END();

}  // namespace focus::test
