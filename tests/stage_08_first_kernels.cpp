// Stage 08: dense attention as three plain kernels, run on the CPU thread by thread.
#include "cuda_problem.h"

using namespace focus;
using namespace focus::test;

namespace {

constexpr int rung = 1;

}  // namespace

TEST_CASE("forward: one token attends to itself") {
  Problem x({1, 1, 1, 3});
  x.run.run(gpu::Pass::forward, rung);
  CHECK(x.compare("o", x.run.o, x.v) == "");
}

TEST_CASE("forward: one block, a block to the last thread, and numbers left over") {
  // 9·9 numbers need one block of 256 threads, 16·16 fill it, 17·17 begin another.
  for (int T : {9, 16, 17}) {
    Problem x({1, T, 2, T - 1});
    x.run.run(gpu::Pass::forward, rung);
    CHECK(x.compare("o", x.run.o, x.wanted.o) == "");
  }
}

TEST_CASE("forward: output and logarithms of several sequences and heads") {
  for (const Sizes s : {Sizes{2, 5, 3, 4}, Sizes{3, 33, 2, 7}, Sizes{1, 40, 2, 65}}) {
    Problem x(s);
    x.run.run(gpu::Pass::forward, rung);
    CHECK(x.compare("o", x.run.o, x.wanted.o) == "");
    CHECK(difference("lse", {s.units(), s.T}, x.run.lse.host().data(), x.wanted_lse(), 64) == "");
  }
}

TEST_CASE("forward: scores in the hundreds do not overflow") {
  Problem x({2, 19, 2, 8}, {}, 200);
  x.run.run(gpu::Pass::forward, rung);
  const std::vector<float> o = x.run.o.host();
  CHECK(std::all_of(o.begin(), o.end(), [](float value) { return std::isfinite(value); }));
  // Rounded scores of this size move the weights by up to some ten-thousandths.
  CHECK(too_far("o", x.run.o, x.wanted.o, 1e-3) == "");
}

TEST_CASE("forward: scores in the hundreds below 0") {
  const Sizes s{1, 19, 1, 4};
  Numbers q(size_t(s.T * s.D), 20), k = normal_numbers(s, 2);
  for (double& x : k) x = double(float(x / 64 - 16));  // scores of -640, but for small differences
  Problem x(s, {}, q, k);
  x.run.run(gpu::Pass::forward, rung);
  CHECK(too_far("o", x.run.o, x.wanted.o, 1e-3) == "");
  CHECK(difference("lse", {s.units(), s.T}, x.run.lse.host().data(), x.wanted_lse(), 64) == "");
}

TEST_CASE("neighbouring threads get neighbouring columns") {
  if (!gpu::emulated()) return;
  // Memory for the first row of scores only: the first thread that finds none has the second row.
  Problem x({1, 17, 1, 16});
  gpu::Call& c = x.run.call;
  c.rung = rung;
  gpu::DeviceArray<float> one_row(20);
  c.workspace = one_row.data(), c.workspace_size = 17 * 17 * sizeof(float);
  gpu::shuffle_threads(0);
  std::string trouble = "no trouble";
  try {
    gpu::rung_for(Pattern::full, gpu::Pass::forward, c).run(Pattern::full, c);
  } catch (const RunError& error) {
    trouble = error.what();
    if (trouble.find(": the gap '") != std::string::npos) throw;
  }
  CHECK_MESSAGE(trouble.find("thread (20,0,0)") != std::string::npos,
                "with memory for the first 20 numbers of the scores, got ", trouble,
                "; wanted thread 20 to be the first that finds none");
}

TEST_CASE("forward and backward: heads in parts, when memory holds the scores of one or two only") {
  for (int heads : {1, 2}) {
    Problem x({2, 18, 3, 5});
    gpu::Call& c = x.run.call;
    c.rung = rung;
    for (const gpu::Pass pass : {gpu::Pass::forward, gpu::Pass::backward}) {
      const int matrices = pass == gpu::Pass::forward ? 1 : 2;
      gpu::DeviceArray<float> memory(size_t(18 * 18 * heads * matrices));
      memory.poison();
      c.workspace = memory.data(), c.workspace_size = memory.size() * sizeof(float);
      const gpu::Rung& it = gpu::rung_for(Pattern::full, pass, c);
      it.run(Pattern::full, c);
      gpu::synchronize();
    }
    CHECK(x.compare("o", x.run.o, x.wanted.o) == "");
    CHECK(x.compare("dq", x.run.dq, x.wanted.dq) == "");
    CHECK(x.compare("dk", x.run.dk, x.wanted.dk) == "");
    CHECK(x.compare("dv", x.run.dv, x.wanted.dv) == "");
  }
}

TEST_CASE("backward: gradients of queries, keys and values") {
  for (const Sizes s : {Sizes{1, 2, 1, 1}, Sizes{2, 17, 3, 4}, Sizes{1, 35, 2, 65}}) {
    Problem x(s);
    x.run.run(gpu::Pass::forward, rung);
    x.run.run(gpu::Pass::backward, rung);
    CHECK(x.compare("dq", x.run.dq, x.wanted.dq) == "");
    CHECK(x.compare("dk", x.run.dk, x.wanted.dk) == "");
    CHECK(x.compare("dv", x.run.dv, x.wanted.dv) == "");
  }
}

TEST_CASE("any order of threads and blocks gives the same bits") {
  Problem x({2, 21, 2, 6});
  std::vector<std::vector<float>> seen;
  for (int i = 0; i < 3; ++i) {  // run() shuffles anew each time
    x.run.run(gpu::Pass::forward, rung);
    x.run.run(gpu::Pass::backward, rung);
    std::vector<float> all = x.run.o.host();
    for (auto* more : {&x.run.dq, &x.run.dk, &x.run.dv})
      for (float value : more->host()) all.push_back(value);
    seen.push_back(all);
  }
  CHECK(other_bits(seen[1], seen[0]) == "");
  CHECK(other_bits(seen[2], seen[0]) == "");
}
