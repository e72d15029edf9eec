// Philox4x32-10 against the known answers of its authors' Random123 distribution, and the helpers.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "rng.h"

using namespace focus;

TEST_CASE("Philox4x32-10 gives the published known answers") {
  CHECK(Philox::block({0, 0, 0, 0}, {0, 0}) ==
        Philox::Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(Philox::block({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        Philox::Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(Philox::block({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Philox::Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("streams, indices and seeds give different numbers, the same name the same ones") {
  const uint32_t first = Rng(7, Stream::data, 1, 2).next();
  CHECK(Rng(7, Stream::data, 1, 2).next() == first);
  CHECK(Rng(8, Stream::data, 1, 2).next() != first);
  CHECK(Rng(7, Stream::init, 1, 2).next() != first);
  CHECK(Rng(7, Stream::data, 2, 2).next() != first);
  CHECK(Rng(7, Stream::data, 1, 3).next() != first);
  CHECK(Rng((uint64_t{1} << 32) + 7, Stream::data, 1, 2).next() != first);
}

TEST_CASE("below is uniform, also for a range that does not divide 2^32") {
  Rng rng(1, Stream::data);
  std::vector<int> counts(6);
  const int draws = 60000;
  for (int i = 0; i < draws; ++i) ++counts[rng.below(6)];
  // Binomial(60000, 1/6): standard deviation 91; five of them either side.
  for (int count : counts) CHECK(std::abs(count - draws / 6) < 5 * 91);
  CHECK(rng.below(1) == 0);
}

TEST_CASE("normal numbers have mean 0 and variance 1; uniform ones stay in [0, 1)") {
  Rng rng(2, Stream::analysis);
  double sum = 0, squares = 0;
  const int draws = 100000;
  for (int i = 0; i < draws; ++i) {
    const double x = rng.normal();
    sum += x;
    squares += x * x;
    const double u = rng.uniform();
    CHECK_UNARY(u >= 0 && u < 1);
  }
  CHECK(std::abs(sum / draws) < 5 / std::sqrt(double(draws)));
  CHECK(std::abs(squares / draws - 1) < 5 * std::sqrt(2.0 / draws));
}

TEST_CASE("shuffle is a permutation and depends on the stream") {
  std::vector<int> a(100), b(100);
  std::iota(a.begin(), a.end(), 0);
  std::iota(b.begin(), b.end(), 0);
  Rng(3, Stream::order, 1).shuffle(a);
  Rng(3, Stream::order, 2).shuffle(b);
  CHECK(a != b);
  std::sort(a.begin(), a.end());
  for (int i = 0; i < 100; ++i) CHECK(a[size_t(i)] == i);
}
