// The microbenchmarks of focus bench device: each kernel does the work whose time is taken.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cuda/bench/microbenchmarks.h"
#include "cuda/device/device.h"

using namespace focus::gpu;

TEST_CASE("microbenchmarks: every kernel's result is what it must be") {
  MicrobenchmarkSize small;
  small.runs = 3, small.iterations = 5, small.blocks_per_multiprocessor = 1;
  small.table_rows = 37, small.rows_per_thread = 9, small.launches = 3, small.barriers = 4;
  for (const uint64_t seed : {0, 5}) {
    shuffle_threads(seed);
    const std::vector<Microbenchmark> results = run_microbenchmarks(small);
    CHECK(results.size() >= 8);
    for (const Microbenchmark& p : results) {
      INFO(p.name);
      CHECK(p.value >= p.quartile1);
      CHECK(p.value <= p.quartile3);
      CHECK((p.unit.empty() || p.value > 0));
      CHECK(std::count_if(results.begin(), results.end(),
                          [&](const Microbenchmark& other) { return other.name == p.name; }) == 1);
    }
  }
  shuffle_threads(0);
}
