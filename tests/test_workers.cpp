// Every piece exactly once, phase after phase, whatever the number of threads.
#include <doctest/doctest.h>

#include <numeric>

#include "tensor/workers.h"

using namespace focus;

TEST_CASE("every piece is done once, by a thread with a valid index") {
  for (int threads = 1; threads <= 4; ++threads) {
    Workers workers(threads);
    CHECK(workers.threads() == threads);
    // Plain ints: two threads at one of them would be a race, which the thread sanitizer reports.
    std::vector<int> count(97), by_thread(size_t(threads), 0);
    int expected = 0;
    bool valid = true;
    for (int phase = 0; phase < 3000; ++phase) {
      const int pieces = phase % 98;  // 0, 1 and more than there are threads
      expected += pieces;
      workers.run(pieces, [&](int piece, int thread) {
        if (piece < 0 || piece >= pieces || thread < 0 || thread >= threads) valid = false;
        ++count[size_t(piece)];
        ++by_thread[size_t(thread)];
      });
    }
    CHECK(valid);
    CHECK(std::accumulate(count.begin(), count.end(), 0) == expected);
    CHECK(std::accumulate(by_thread.begin(), by_thread.end(), 0) == expected);
    // Piece j is part of the phases with more than j pieces.
    for (int j = 0; j < 97; ++j) {
      int wanted = 0;
      for (int phase = 0; phase < 3000; ++phase) wanted += phase % 98 > j;
      if (count[size_t(j)] != wanted) CHECK_MESSAGE(count[size_t(j)] == wanted, "piece ", j);
    }
  }
}

TEST_CASE("what one phase writes the next one reads") {
  Workers workers(3);
  std::vector<long> x(64, 1);
  for (int phase = 0; phase < 200; ++phase) {
    std::vector<long> y(64);
    workers.run(64, [&](int piece, int) {
      y[size_t(piece)] = x[size_t(piece)] + x[size_t((piece + 17) % 64)] % 1000;
    });
    x.swap(y);
    for (long& value : x) value %= 100003;
  }
  std::vector<long> alone(64, 1);
  for (int phase = 0; phase < 200; ++phase) {
    std::vector<long> y(64);
    for (size_t i = 0; i < 64; ++i) y[i] = (alone[i] + alone[(i + 17) % 64] % 1000) % 100003;
    alone.swap(y);
  }
  CHECK(x == alone);
}

TEST_CASE("ranges cover 0 … n-1 without overlap, the last may be short") {
  Workers workers(2);
  for (int n : {0, 1, 2, 31, 32, 33, 100}) {
    std::vector<int> count(101);
    workers.run_ranges(n, 32, [&](int begin, int end) {
      if (!(begin < end && end - begin <= 32 && begin % 32 == 0)) count[100] = 1;
      for (int i = begin; i < end; ++i) ++count[size_t(i)];
    });
    for (int i = 0; i <= 100; ++i) CHECK(count[size_t(i)] == (i < n ? 1 : 0));
  }
}

TEST_CASE("workers start and stop, used or not") {
  for (int i = 0; i < 50; ++i) {
    Workers workers(1 + i % 4);
    if (i % 3 == 0) workers.run(5, [](int, int) {});
  }
}

TEST_CASE("what a piece throws reaches the caller, and the next phase is whole") {
  Workers workers(3);
  for (int round = 0; round < 20; ++round) {
    const auto throws = [](int piece, int) {
      if (piece % 7 == 3) throw std::runtime_error("piece");
    };
    CHECK_THROWS_WITH(workers.run(50, throws), "piece");
    std::vector<int> done(50);
    workers.run(50, [&](int piece, int) { ++done[size_t(piece)]; });
    CHECK(done == std::vector<int>(50, 1));
  }
}
