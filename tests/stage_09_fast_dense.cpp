// Stage 09: tiles in shared memory and registers, the softmax in one pass, bands and blocks.
#include "cuda_problem.h"

using namespace focus;
using namespace focus::test;

TEST_CASE("tiles: slices of shared memory, whole and cut off, forward") {
  for (const Sizes s : {Sizes{1, 3, 1, 2}, Sizes{2, 64, 2, 16}, Sizes{1, 70, 2, 21}}) {
    Problem x(s);
    check_forward(x, 2);
  }
}

TEST_CASE("tiles: backward multiplies transposed matrices too") {
  for (const Sizes s : {Sizes{2, 5, 3, 4}, Sizes{1, 67, 2, 18}}) {
    Problem x(s);
    x.run.run(gpu::Pass::forward, 2);
    check_backward(x, 2);
  }
}

TEST_CASE("online softmax: one pass over the keys, logarithms too") {
  for (const Sizes s : {Sizes{1, 1, 1, 16}, Sizes{2, 33, 2, 20}, Sizes{1, 70, 2, 64}}) {
    Problem x(s);
    check_forward(x, 3);
    CHECK(difference("lse", {s.units(), s.T}, x.run.lse.host().data(), x.wanted_lse(), 64) == "");
  }
}

TEST_CASE("online softmax: rising, falling and huge scores") {
  for (int rung : {3, 4})
    for (double slope : {0.5, -0.5, 40.0}) {
      const Sizes s{1, 70, 1, 16};
      Numbers q(size_t(s.T * s.D)), k(q.size());
      for (int t = 0; t < s.T; ++t) q[s.at(0, t, 0)] = 1, k[s.at(0, t, 0)] = slope * t;
      Problem x(s, {}, q, k);
      check_forward(x, rung);
    }
}

TEST_CASE("online softmax: a first score of minus infinity weighs nothing") {
  for (int rung : {3, 4})
    for (int many : {1, 70}) {  // 70: more than a tile of keys
      const Sizes s{1, 100, 1, 16};
      Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2);
      for (int t = 0; t < s.T; ++t) q[s.at(0, t, 0)] = 1;
      for (int t = 0; t < many; ++t) k[s.at(0, t, 0)] = -INFINITY;
      k[s.at(0, 90, 0)] = -INFINITY;  // nor does one after others
      Problem x(s, {}, q, k);
      x.run.run(gpu::Pass::forward, rung);
      CHECK(x.compare(str("rung ", rung, " o").c_str(), x.run.o, x.wanted.o) == "");
    }
}

TEST_CASE("register tiles: one score far above the others, whichever it is") {
  for (int place = 3; place < 64; place += 8) {  // in each of a thread's columns
    const Sizes s{1, 64, 1, 16};
    Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2);
    for (int t = 0; t < s.T; ++t) q[s.at(0, t, 0)] = 20;
    k[s.at(0, place, 0)] = 60;
    Problem x(s, {}, q, k);
    check_forward(x, 4);
  }
}

TEST_CASE("register tiles: several tiles of keys and queries, all widths") {
  for (const Sizes s :
       {Sizes{1, 1, 1, 16}, Sizes{2, 65, 2, 32}, Sizes{1, 130, 2, 60}, Sizes{1, 66, 1, 128}}) {
    Problem x(s);
    check_forward(x, 4);
    CHECK(difference("lse", {s.units(), s.T}, x.run.lse.host().data(), x.wanted_lse(), 64) == "");
  }
}

TEST_CASE("recomputed backward: from the output and the logarithms alone") {
  for (const Sizes s :
       {Sizes{1, 2, 1, 16}, Sizes{2, 65, 3, 20}, Sizes{1, 130, 1, 64}, Sizes{1, 66, 1, 128}}) {
    Problem x(s);
    x.run.run(gpu::Pass::forward, 2);
    check_backward(x, 5);
  }
}

TEST_CASE("recomputed backward: a key behind the last, whose weight would be infinite") {
  const Sizes s{1, 70, 1, 16};
  Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2);
  for (int t = 0; t < s.T; ++t) q[s.at(0, t, 0)] = 20, k[s.at(0, t, 0)] = -19.25;
  Problem x(s, {}, q, k);
  x.run.run(gpu::Pass::forward, 4);
  x.run.run(gpu::Pass::backward, 5);
  // An exponent of 130 is exact to 1e-5 only, and so are the weights.
  const auto close = [&](const char* name, const gpu::DeviceArray<float>& got,
                         const Numbers& wanted) {
    return difference(name, s.shape(), got.host().data(), wanted, 400);
  };
  CHECK(close("dq", x.run.dq, x.wanted.dq) == "");
  CHECK(close("dk", x.run.dk, x.wanted.dk) == "");
  CHECK(close("dv", x.run.dv, x.wanted.dv) == "");
}

TEST_CASE("dropout: on the weights, forward and backward") {
  const Sizes s{2, 70, 2, 16};
  Problem x(s);
  const int per_row = (s.T + 31) / 32;
  const float scale = 1.25f;
  std::vector<unsigned> bits(size_t(s.units() * s.T * per_row),
                             0xAAAAAAAAu);  // noise after the last
  Mask keep(s.pairs());
  Rng rng(99, Stream::analysis);
  for (int row = 0; row < s.units() * s.T; ++row)
    for (int j = 0; j < s.T; ++j) {
      const bool kept = rng.uniform() >= 0.2;
      keep[size_t(row * s.T + j)] = kept;
      unsigned& word = bits[size_t(row * per_row + j / 32)];
      word = (word & ~(1u << j % 32)) | unsigned(kept) << j % 32;
    }
  const gpu::DeviceArray<unsigned> words(bits);
  x.run.call.keep = {words.data(), per_row, scale};
  x.wanted = reference_attention(s, x.q, x.k, x.v, Mask(s.pairs(), 1), keep, double(scale), x.d_o);
  check_forward(x, 4);
  CHECK(difference("lse", {s.units(), s.T}, x.run.lse.host().data(), x.wanted_lse(), 64) == "");
  check_backward(x, 5);
}

TEST_CASE("bands and blocks: a thread a token, with and without global tokens") {
  for (const Pattern pattern : {Pattern::banded, Pattern::block})
    for (int width : {1, 4, 5})
      for (int global_tokens : {0, 2}) {
        Problem x({2, 13, 2, 6}, {.pattern = pattern, .k = width, .global_tokens = global_tokens});
        check_forward(x, 12);
        check_backward(x, 12);
      }
}

TEST_CASE("bands and blocks: a row of lanes a token") {
  for (const Pattern pattern : {Pattern::banded, Pattern::block})
    for (int width : {3, 8})
      for (int global_tokens : {0, 3}) {
        Problem x({1, 37, 2, 20}, {.pattern = pattern, .k = width, .global_tokens = global_tokens});
        check_forward(x, 13);
        check_backward(x, 13);
      }
}

TEST_CASE("any order of threads and blocks gives the same bits") {
  Problem x({1, 67, 2, 16});
  for (const auto& rungs : {std::pair{2, 2}, {3, 5}, {4, 5}}) {
    CAPTURE(rungs.first);
    std::vector<std::vector<float>> seen;
    for (int i = 0; i < 2; ++i) {  // run() shuffles anew each time
      x.run.run(gpu::Pass::forward, rungs.first);
      x.run.run(gpu::Pass::backward, rungs.second);
      std::vector<float> all = x.run.o.host();
      for (auto* more : {&x.run.dq, &x.run.dk, &x.run.dv})
        for (float value : more->host()) all.push_back(value);
      seen.push_back(all);
    }
    CHECK(other_bits(seen[1], seen[0]) == "");
  }
}
