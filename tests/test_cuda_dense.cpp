// Dense attention's kernels, every rung, against the reference in double.
#include "cuda_run.h"

using namespace focus;
using namespace focus::test;

namespace {

AttentionResult wanted_for(const Sizes& s, const Numbers& q, const Numbers& k, const Numbers& v,
                           const Numbers& d_o) {
  return reference_attention(s, q, k, v, Mask(s.pairs(), 1), {}, 1, d_o);
}

}  // namespace

TEST_CASE("cuda dense: every rung, output and gradients, all sizes") {
  int compared = 0;
  for (int T : lengths_to_test())
    for (int D : widths_to_test()) {
      if (small_sizes() && T > 65 && D > 64) continue;
      const Sizes s{batch_to_test(T), T, T > 65 ? 1 : 2, D};
      const Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2), v = normal_numbers(s, 3),
                    d_o = normal_numbers(s, 4);
      const AttentionResult wanted = wanted_for(s, q, k, v, d_o);
      KernelRun run(s, Pattern::full, 0, 0, q, k, v, d_o);
      for (int rung : rungs_of(Pattern::full, gpu::Pass::forward)) {
        if (!run.supports(rung)) continue;
        for (auto* x : {&run.o, &run.lse, &run.scores}) KernelRun::poison_array(*x);
        const std::string what = str("rung ", rung, " T ", T, " D ", D, " ");
        CHECK(run.run(gpu::Pass::forward, rung) == rung);
        CHECK(too_far(what + "o", run.o, wanted.o, float_limit) == "");
        // A fresh lse goes through the backward that follows.
        for (int backward : rungs_of(Pattern::full, gpu::Pass::backward)) {
          if (rung > 2 ? backward != 5 && backward != 15 : backward != rung) continue;
          if (backward == 15 && rung != 14) continue;  // only that one keeps scores
          for (auto* x : {&run.dq, &run.dk, &run.dv}) KernelRun::poison_array(*x);
          run.run(gpu::Pass::backward, backward);
          const std::string both = str(what, "backward ", backward, " ");
          CHECK(too_far(both + "dq", run.dq, wanted.dq, float_limit) == "");
          CHECK(too_far(both + "dk", run.dk, wanted.dk, float_limit) == "");
          CHECK(too_far(both + "dv", run.dv, wanted.dv, float_limit) == "");
        }
        ++compared;
      }
      CHECK(run.q.host() == as<float>(q));  // inputs are left alone
      CHECK(run.d_o.host() == as<float>(d_o));
    }
  CHECK(compared > 80);
}

TEST_CASE("cuda dense: widths that the fast rungs are not made for run on slow ones") {
  for (int D : {1, 3, 17, 130}) {
    const Sizes s{1, 19, 2, D};
    const Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2), v = normal_numbers(s, 3),
                  d_o = normal_numbers(s, 4);
    const AttentionResult wanted = wanted_for(s, q, k, v, d_o);
    KernelRun run(s, Pattern::full, 0, 0, q, k, v, d_o);
    CHECK(run.run(gpu::Pass::forward) == 2);
    CHECK(run.run(gpu::Pass::backward) == 2);
    CHECK(too_far("o", run.o, wanted.o, float_limit) == "");
    CHECK(too_far("dk", run.dk, wanted.dk, 1e-5) == "");
  }
}
