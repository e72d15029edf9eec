// Top-k attention's kernels, every rung, against the reference in double.
#include <algorithm>

#include "cuda_run.h"

using namespace focus;
using namespace focus::test;

namespace {

std::vector<int> kept_to_test(int T) {
  std::vector<int> result;
  for (int k : {1, 2, 5, 8, 9, 16, 17, T - 1, T})
    if (k >= 1 && k <= T && std::find(result.begin(), result.end(), k) == result.end())
      result.push_back(k);
  return result;
}

// The keys that a mask keeps, ascending, row after row.
std::vector<int> keys_of(const Sizes& s, const Mask& mask) {
  std::vector<int> keys;
  for (size_t pair = 0; pair < mask.size(); ++pair)
    if (mask[pair]) keys.push_back(int(pair % size_t(s.T)));
  return keys;
}

struct Problem {
  Sizes s;
  Numbers q, k, v, d_o;
  // Scores that are sums of quarters are exact in float32, so that the kernels must choose the
  // same keys as the reference, and rows are full of ties.
  explicit Problem(const Sizes& sizes)
      : s(sizes),
        q(quarters_for(1)),
        k(quarters_for(2)),
        v(normal_numbers(s, 3)),
        d_o(normal_numbers(s, 4)) {}
  Numbers quarters_for(uint32_t which) const {
    return quarters(size_t(s.units() * s.T * s.D), which);
  }
};

// Every rung that supports the call, and the backward rungs on what the forward ones chose.
void check_all_rungs(const Problem& in, int kept) {
  const Sizes& s = in.s;
  const Mask mask = reference_mask({.pattern = Pattern::topk, .k = kept}, s, in.q, in.k);
  const AttentionResult wanted = reference_attention(s, in.q, in.k, in.v, mask, {}, 1, in.d_o);
  KernelRun run(s, Pattern::topk, kept, 0, in.q, in.k, in.v, in.d_o);
  for (int rung : rungs_of(Pattern::topk, gpu::Pass::forward)) {
    if (rung >= 8 && kept > 16) continue;
    if (!run.supports(rung)) continue;
    const std::string what = str("rung ", rung, " T ", s.T, " D ", s.D, " k ", kept, " ");
    KernelRun::poison_array(run.o);
    KernelRun::poison_array(run.p);
    run.keys.poison();
    CHECK(run.run(gpu::Pass::forward, rung) == rung);
    CHECK_MESSAGE(run.keys.host() == keys_of(s, mask), what);
    CHECK(too_far(what + "o", run.o, wanted.o, float_limit) == "");
  }
  for (int rung : rungs_of(Pattern::topk, gpu::Pass::backward)) {
    const std::string what = str("backward ", rung, " T ", s.T, " D ", s.D, " k ", kept, " ");
    for (auto* x : {&run.dq, &run.dk, &run.dv}) KernelRun::poison_array(*x);
    CHECK(run.run(gpu::Pass::backward, rung) == rung);
    // With k = 1 the weights are 1 and these gradients 0.
    CHECK(too_far(what + "dq", run.dq, wanted.dq, kept > 1 ? float_limit : 1e-4) == "");
    CHECK(too_far(what + "dk", run.dk, wanted.dk, kept > 1 ? float_limit : 1e-4) == "");
    CHECK(too_far(what + "dv", run.dv, wanted.dv, float_limit) == "");
  }
}

}  // namespace

TEST_CASE("cuda topk: every rung, keys, output and gradients, all sizes") {
  for (int T : lengths_to_test())
    for (int kept : kept_to_test(T)) {
      const int widths[] = {64, 16, 20, 128, 36, 100};
      // Each (T, k) with one width, so that every width meets many of them.
      check_all_rungs(Problem({batch_to_test(T), T, T > 65 ? 1 : 2, widths[(T + kept) % 6]}), kept);
    }
}

TEST_CASE("cuda topk: scores that rise or fall along the keys") {
  // Rising scores put every key into the list; falling ones none after the first k.
  for (double step : {1.0, -1.0}) {
    Problem in({1, 130, 1, 16});
    for (int t = 0; t < in.s.T; ++t)
      for (int c = 0; c < in.s.D; ++c) {
        in.q[in.s.at(0, t, c)] = c == 0 ? 1 + t % 3 : 0;
        in.k[in.s.at(0, t, c)] = c == 0 ? step * t / 4 : 0;
      }
    for (int kept : {1, 5, 16}) check_all_rungs(in, kept);
  }
}

TEST_CASE("cuda topk: every query chooses the same keys, so that their lists are long") {
  Problem in({1, 150, 2, 20});
  for (int u = 0; u < 2; ++u)
    for (int t = 0; t < in.s.T; ++t)
      for (int c = 0; c < in.s.D; ++c) {
        in.q[in.s.at(u, t, c)] = c == 0 ? 1 : 0.25 * (t % 3);
        in.k[in.s.at(u, t, c)] = c == 0 ? (t == 7 || t == 70 || t == 149 ? 50 : 0) : 0.25 * (t % 5);
      }
  for (int kept : {1, 3}) check_all_rungs(in, kept);
}

TEST_CASE("cuda topk: k = T is full attention") {
  const Sizes s{1, 40, 2, 64};
  const Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2), v = normal_numbers(s, 3),
                d_o = normal_numbers(s, 4);
  KernelRun full(s, Pattern::full, 0, 0, q, k, v, d_o), topk(s, Pattern::topk, 40, 0, q, k, v, d_o);
  for (KernelRun* run : {&full, &topk})
    for (gpu::Pass pass : {gpu::Pass::forward, gpu::Pass::backward}) run->run(pass);
  const auto close = [](const gpu::DeviceArray<float>& a, const gpu::DeviceArray<float>& b) {
    const std::vector<float> x = b.host();
    return too_far("", a, Numbers(x.begin(), x.end()), float_limit);
  };
  CHECK(close(topk.o, full.o) == "");
  CHECK(close(topk.dq, full.dq) == "");
  CHECK(close(topk.dk, full.dk) == "");
  CHECK(close(topk.dv, full.dv) == "");
}
