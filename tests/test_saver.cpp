// What finished epochs leave behind is written by another thread, in order and without gaps.
#include <doctest/doctest.h>

#include <atomic>

#include "error.h"
#include "train/saver.h"

using namespace focus;

namespace {

Saver::Item item(size_t run, int epoch) {
  Saver::Item result;
  result.run = run, result.rows = {EpochMetrics{}};
  result.rows[0].epoch = epoch;
  return result;
}

}  // namespace

TEST_CASE("saver: every item once, a run's epochs in order, one of them at a time") {
  std::vector<std::vector<int>> epochs(3);
  int calls = 0;
  Saver saver([&](const std::vector<Saver::Item>& items) {
    ++calls;
    std::vector<bool> seen(3);
    for (const Saver::Item& one : items) {
      CHECK(!seen[one.run]);
      seen[one.run] = true;
      epochs[one.run].push_back(one.rows.at(0).epoch);
    }
  });
  for (int epoch = 1; epoch <= 50; ++epoch)
    for (size_t run = 0; run < 3; ++run) saver.put(item(run, epoch));
  saver.finish();
  CHECK(calls >= 50);
  for (const std::vector<int>& of_run : epochs) {
    REQUIRE(of_run.size() == 50);
    for (int epoch = 1; epoch <= 50; ++epoch) CHECK(of_run[size_t(epoch) - 1] == epoch);
  }
}

TEST_CASE("saver: whoever computes waits while its last epoch is being written") {
  std::atomic<bool> first_is_written{false};
  Saver saver([&](const std::vector<Saver::Item>& items) {
    if (items[0].rows.at(0).epoch != 1) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    first_is_written = true;
  });
  saver.put(item(0, 1));
  saver.put(item(0, 2));
  CHECK(first_is_written);
  saver.finish();
}

TEST_CASE("saver: what writing throws comes out at the next call") {
  Saver saver([](const std::vector<Saver::Item>&) { fail_input("no space"); });
  saver.put(item(0, 1));
  CHECK_THROWS_AS(saver.put(item(0, 2)), InputError);
  CHECK_THROWS_AS(saver.finish(), InputError);
}

TEST_CASE("saver: what was handed over is written, also when nobody asks") {
  int written = 0;
  {
    Saver saver([&](const std::vector<Saver::Item>& items) { written += int(items.size()); });
    for (size_t run = 0; run < 5; ++run) saver.put(item(run, 1));
  }
  CHECK(written == 5);
}
