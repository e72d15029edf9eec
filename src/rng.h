// Random numbers: the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror, Shaw:
// "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// A counter-based generator is a pure function from (key, counter) to 128 random bits. There is no
// state to share between threads or to save in a checkpoint: any number can be computed from its
// place alone. The key is the run's seed; the counter names the purpose (Stream), two indices the
// caller is free to use (epoch, step, sample, layer), and the position in the sequence. So data,
// initialisation, order and dropout never disturb each other, and a run depends on its own seed
// only.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

namespace focus {

struct Philox {
  using Counter = std::array<uint32_t, 4>;
  using Key = std::array<uint32_t, 2>;

  // Ten rounds; each multiplies two of the four words by constants and mixes high and low halves.
  static Counter block(Counter c, Key key) {
    for (int round = 0; round < 10; ++round) {
      const uint64_t m0 = uint64_t{0xD2511F53u} * c[0];
      const uint64_t m1 = uint64_t{0xCD9E8D57u} * c[2];
      c = {uint32_t(m1 >> 32) ^ c[1] ^ key[0], uint32_t(m1), uint32_t(m0 >> 32) ^ c[3] ^ key[1],
           uint32_t(m0)};
      key[0] += 0x9E3779B9u;  // the golden ratio
      key[1] += 0xBB67AE85u;  // sqrt(3) - 1
    }
    return c;
  }

  static Key key_of(uint64_t seed) { return {uint32_t(seed), uint32_t(seed >> 32)}; }
};

// The purpose of a random number. The values are part of every result: never renumber them.
enum class Stream : uint32_t {
  data = 1,       // indices: split, example
  init = 2,       // indices: parameter tensor, 0
  order = 3,      // indices: epoch, 0
  dropout = 4,    // indices: step, site
  attention = 5,  // indices: step, site (the random pattern's keys)
  analysis = 6,   // indices: free
};

// A sequence of random numbers: one (seed, stream, index, sub-index).
class Rng {
 public:
  Rng(uint64_t seed, Stream stream, uint32_t index = 0, uint32_t sub_index = 0)
      : key_(Philox::key_of(seed)), counter_{0, index, sub_index, uint32_t(stream)} {}

  uint32_t next() {
    if (used_ == 4) {
      bits_ = Philox::block(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return bits_[used_++];
  }

  // Uniform in 0 … n-1 without bias (Lemire 2019: multiply, and redraw the few uneven cases).
  uint32_t below(uint32_t n) {
    uint64_t product = uint64_t{next()} * n;
    if (uint32_t(product) < n) {
      const uint32_t uneven = (0u - n) % n;
      while (uint32_t(product) < uneven) product = uint64_t{next()} * n;
    }
    return uint32_t(product >> 32);
  }

  // Uniform in lo … hi, both included.
  int between(int lo, int hi) { return lo + int(below(uint32_t(hi - lo) + 1)); }

  // Uniform in [0, 1) with 53 random bits.
  double uniform() {
    const uint64_t high = next() >> 5, low = next() >> 6;
    return double((high << 26) | low) * 0x1p-53;
  }

  // Standard normal (Box-Muller; one of the pair is dropped, which keeps the sequence simple).
  double normal() {
    const double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }

  // Fisher-Yates.
  template <class Container>
  void shuffle(Container& items) {
    for (size_t i = items.size(); i > 1; --i) {
      using std::swap;
      swap(items[i - 1], items[below(uint32_t(i))]);
    }
  }

 private:
  Philox::Key key_;
  Philox::Counter counter_;
  Philox::Counter bits_{};
  int used_ = 4;
};

}  // namespace focus
