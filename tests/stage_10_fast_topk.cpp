// Stage 10: choosing the best keys by warps and in registers, and a backward pass without a T × T.
#include "cuda_problem.h"

using namespace focus;
using namespace focus::test;

namespace {

// Scores that are sums of quarters are exact in float32 and full of ties.
Problem with_ties(const Sizes& s, int k) {
  const size_t n = size_t(s.units() * s.T * s.D);
  return Problem(s, {.pattern = Pattern::topk, .k = k}, quarters(n, 1), quarters(n, 2));
}

// "" if the kept keys are the reference's, else the first row that differs.
std::string compare_keys(const Problem& x, int k) {
  const std::vector<int> got = x.run.keys.host();
  const Mask mask = reference_mask({.pattern = Pattern::topk, .k = k}, x.s, x.q, x.k);
  for (int u = 0; u < x.s.units(); ++u)
    for (int i = 0; i < x.s.T; ++i) {
      std::string wanted, came;
      for (int j = 0; j < x.s.T; ++j)
        if (mask[x.s.pair(u, i, j)]) wanted += str(" ", j);
      for (int e = 0; e < k; ++e) came += str(" ", got[size_t((u * x.s.T + i) * k + e)]);
      if (came != wanted)
        return str("head ", u, ", query ", i, " keeps keys", came, ", wanted", wanted);
    }
  return "";
}

void check_choice(Problem x, int k, int rung) {
  CAPTURE(rung);
  check_forward(x, rung);
  CHECK(compare_keys(x, k) == "");
}

}  // namespace

TEST_CASE("threshold by bits: the same keys as k scans, with ties") {
  for (int rung : {6, 7})
    for (int k : {1, 5, 20}) {
      check_choice(with_ties({2, 37, 2, 8}, k), k, rung);
      check_choice(with_ties({1, 101, 1, 4}, k), k, rung);
    }
}

TEST_CASE("threshold by bits: negative scores and a single large one") {
  const Sizes s{1, 40, 1, 4};
  Numbers q(size_t(s.T * s.D), 1), k(q.size(), -2);
  for (int c = 0; c < 4; ++c) k[s.at(0, 33, c)] = 50, k[s.at(0, 2, c)] = -1.5;
  for (int rung : {6, 7}) check_choice(Problem(s, {Pattern::topk, 3}, q, k), 3, rung);
}

TEST_CASE("lists in registers: a thread a query, ties to the lower key") {
  for (int k : {1, 3, 5, 8, 16}) check_choice(with_ties({1, 37, 2, 16}, k), k, 8);
}

TEST_CASE("lists in registers: scores that rise all the time, and that fall") {
  for (int rung : {8, 9})
    for (double slope : {0.25, -0.25}) {
      const Sizes s{1, 70, 1, 16};
      Numbers q(size_t(s.T * s.D)), k(q.size());
      for (int t = 0; t < s.T; ++t) q[s.at(0, t, 0)] = 1, k[s.at(0, t, 0)] = slope * t;
      check_choice(Problem(s, {Pattern::topk, 5}, q, k), 5, rung);
    }
}

TEST_CASE("gates: tiles of scores, tables, merged lists") {
  for (const Sizes s : {Sizes{1, 17, 1, 16}, Sizes{2, 70, 2, 20}, Sizes{1, 150, 1, 64}})
    for (int k : {1, 5, 16}) check_choice(with_ties(s, k), k, 9);
}

TEST_CASE("a score that is not a number makes its row not a number") {
  for (int rung : {7, 8, 9}) {
    const Sizes s{1, 40, 1, 16};
    Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2);
    q[s.at(0, 3, 0)] = NAN;
    Problem x(s, {Pattern::topk, 5}, q, k);
    x.run.run(gpu::Pass::forward, rung);
    const std::vector<float> o = x.run.o.host();
    int rows = 0;
    for (int i = 0; i < s.T; ++i) rows += std::isnan(o[s.at(0, i, 5)]);
    CHECK_MESSAGE(rows == 1, str("rung ", rung, ": ", rows, " rows are not a number"));
    CHECK(std::isnan(o[s.at(0, 3, 0)]));
  }
}

TEST_CASE("backward: gradients of queries, and of keys by atomic additions") {
  for (int k : {1, 5, 12, 20}) {
    Problem x = with_ties({2, 37, 2, 20}, k);
    x.run.run(gpu::Pass::forward, 6);
    check_backward(x, 10);
  }
}

TEST_CASE("backward: the inverted index") {
  for (const Sizes s : {Sizes{2, 21, 3, 16}, Sizes{1, 70, 2, 64}})
    for (int k : {1, 5, 12, 20}) {
      Problem x = with_ties(s, k);
      x.run.run(gpu::Pass::forward, 6);
      check_backward(x, 11);
    }
}

// What one warp tells the other about memory is no matter of luck only with a __syncwarp between.
TEST_CASE("warps: __syncwarp where lanes read what others wrote, or write what others read") {
  if (!gpu::emulated()) return;
  Problem x = with_ties({1, 70, 1, 16}, 5);
  gpu::record_acts();
  x.run.run(gpu::Pass::forward, 9);
  x.run.run(gpu::Pass::backward, 11);
  int merges = 0, placed = 0;
  bool place_waits = true;
  for (unsigned block = 0; block < 4; ++block)
    for (int thread = 0; thread < 256; ++thread) {
      const std::string acts = gpu::acts_of(block, thread);  // w: __syncwarp, b: ballot, h: shuffle
      for (size_t i = 1; i < acts.size(); ++i) {
        merges += acts.substr(i - 1, 3) == "bwh";  // somebody has keys; offered; the new gates
        if (acts[i - 1] == 'm') ++placed, place_waits &= acts.substr(i, 2) == "ww";
      }
    }
  CHECK(placed > 0);
  CHECK_MESSAGE(merges > 0,
                "got merges without a __syncwarp after the offers: the tables may be "
                "written again while other lanes read them");
  CHECK_MESSAGE(place_waits,
                "got places that are read, or read again, without a __syncwarp between");
}

TEST_CASE("backward: a key that every query keeps") {
  const Sizes s{1, 150, 1, 16};
  Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2);
  for (int t = 0; t < s.T; ++t) q[s.at(0, t, 0)] = 2;
  k[s.at(0, 77, 0)] = 20;
  Problem x(s, {Pattern::topk, 3}, q, k);
  x.run.run(gpu::Pass::forward, 6);
  check_backward(x, 11);
}

TEST_CASE("backward: the same bits every time without atomics") {
  Problem x = with_ties({1, 70, 2, 16}, 5);
  x.run.run(gpu::Pass::forward, 6);
  std::vector<std::vector<float>> seen;
  for (int i = 0; i < 3; ++i) {  // run() shuffles anew each time
    x.run.run(gpu::Pass::backward, 11);
    std::vector<float> all = x.run.dq.host();
    for (auto* more : {&x.run.dk, &x.run.dv})
      for (float value : more->host()) all.push_back(value);
    seen.push_back(all);
  }
  CHECK(other_bits(seen[1], seen[0]) == "");
  CHECK(other_bits(seen[2], seen[0]) == "");
}
