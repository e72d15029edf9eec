// Banded and block attention's kernels with global tokens against the reference in double.
#include <algorithm>

#include "cuda_run.h"

using namespace focus;
using namespace focus::test;

namespace {

AttentionResult wanted_for(const Sizes& s, Pattern pattern, int width, int g, const Numbers& q,
                           const Numbers& k, const Numbers& v, const Numbers& d_o) {
  const AttentionSettings settings{.pattern = pattern, .k = width, .global_tokens = g};
  return reference_attention(s, q, k, v, reference_mask(settings, s, q, k), {}, 1, d_o);
}

}  // namespace

TEST_CASE("cuda local: every rung, output and gradients, all sizes, widths, global tokens") {
  int compared = 0, turn = 0, cases = 0;
  const int channels[] = {64, 16, 20, 128, 36, 100};
  for (int T : lengths_to_test()) {
    if (small_sizes() && T == 130) continue;  // nothing here is larger than a block of 64 tokens
    for (Pattern pattern : {Pattern::banded, Pattern::block})
      for (int g : {0, 1, 3})
        for (int width : {1, 2, 5, 6, 9, T - g - 1, T - g}) {
          if (width < 1 || width > T - g) continue;
          if (small_sizes() && ++cases % 3) continue;  // in turn, so that each width meets each g
          const Sizes s{batch_to_test(T), T, T > 65 ? 1 : 2, channels[++turn % 6]};
          const Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2),
                        v = normal_numbers(s, 3), d_o = normal_numbers(s, 4);
          const AttentionResult wanted = wanted_for(s, pattern, width, g, q, k, v, d_o);
          KernelRun run(s, pattern, width, g, q, k, v, d_o);
          for (int rung : {12, 13}) {
            const std::string what = str(name_of(pattern), " rung ", rung, " T ", T, " D ", s.D,
                                         " width ", width, " g ", g, " ");
            for (auto* x : {&run.o, &run.lse, &run.dq, &run.dk, &run.dv})
              KernelRun::poison_array(*x);
            CHECK(run.run(gpu::Pass::forward, rung) == rung);
            CHECK(run.run(gpu::Pass::backward, rung) == rung);
            // A row that keeps one key has gradients 0 for q and k.
            const double limit = width > 1 || g > 0 ? float_limit : 1e-4;
            CHECK(too_far(what + "o", run.o, wanted.o, float_limit) == "");
            CHECK(too_far(what + "dq", run.dq, wanted.dq, limit) == "");
            CHECK(too_far(what + "dk", run.dk, wanted.dk, limit) == "");
            CHECK(too_far(what + "dv", run.dv, wanted.dv, float_limit) == "");
            ++compared;
          }
        }
  }
  CHECK(compared > (small_sizes() ? 60 : 300));
}

TEST_CASE("cuda local: a width of T is full attention") {
  const Sizes s{1, 40, 2, 64};
  const Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2), v = normal_numbers(s, 3),
                d_o = normal_numbers(s, 4);
  const auto as_numbers = [](const gpu::DeviceArray<float>& x) {
    const std::vector<float> host = x.host();
    return Numbers(host.begin(), host.end());
  };
  KernelRun full(s, Pattern::full, 0, 0, q, k, v, d_o);
  full.run(gpu::Pass::forward), full.run(gpu::Pass::backward);
  for (Pattern pattern : {Pattern::banded, Pattern::block}) {
    KernelRun run(s, pattern, 40, 0, q, k, v, d_o);
    run.run(gpu::Pass::forward), run.run(gpu::Pass::backward);
    CHECK(too_far("o", run.o, as_numbers(full.o), float_limit) == "");
    CHECK(too_far("dq", run.dq, as_numbers(full.dq), float_limit) == "");
    CHECK(too_far("dk", run.dk, as_numbers(full.dk), float_limit) == "");
    CHECK(too_far("dv", run.dv, as_numbers(full.dv), float_limit) == "");
  }
}
