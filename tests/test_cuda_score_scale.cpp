// Attention's kernels with a factor on the scores, every rung, against the reference in double.
#include "cuda_run.h"

using namespace focus;
using namespace focus::test;

namespace {

// Queries and keys of quarters: scores are exact in float32, so that top-k's choice is.
struct Problem {
  Sizes s;
  AttentionSettings settings;
  Numbers q, k, v, d_o;
  AttentionResult wanted;
  KernelRun run;

  Problem(const Sizes& sizes, const AttentionSettings& a)
      : s(sizes),
        settings(a),
        q(quarters(size_t(s.units() * s.T * s.D), 1)),
        k(quarters(q.size(), 2)),
        v(normal_numbers(s, 3)),
        d_o(normal_numbers(s, 4)),
        wanted(
            reference_attention(s, q, k, v, reference_mask(a, s, q, k), {}, 1, d_o, a.score_scale)),
        run(s, a.pattern, a.k, a.global_tokens, q, k, v, d_o) {
    run.call.score_scale = float(a.score_scale);
  }

  void forward(int rung, double limit) {
    KernelRun::poison_array(run.o);
    CHECK(run.run(gpu::Pass::forward, rung) == rung);
    CHECK(too_far(what(rung) + "o", run.o, wanted.o, limit) == "");
  }
  void backward(int rung, double limit) {
    for (auto* x : {&run.dq, &run.dk, &run.dv}) KernelRun::poison_array(*x);
    CHECK(run.run(gpu::Pass::backward, rung) == rung);
    CHECK(too_far(what(rung) + "dq", run.dq, wanted.dq, limit) == "");
    CHECK(too_far(what(rung) + "dk", run.dk, wanted.dk, limit) == "");
    CHECK(too_far(what(rung) + "dv", run.dv, wanted.dv, limit) == "");
  }
  std::string what(int rung) const {
    return str(name_of(settings.pattern), ", scale ", settings.score_scale, ", T ", s.T, ", D ",
               s.D, ", rung ", rung, ": ");
  }
};

}  // namespace

TEST_CASE("cuda score scale: every rung of every pattern in float32") {
  int compared = 0;
  for (double scale : {0.5, 4.0})
    for (Pattern pattern : {Pattern::full, Pattern::topk, Pattern::banded, Pattern::block})
      for (int T : {17, 130})
        for (int D : {20, 64}) {
          const int g = is_positional(pattern) ? 2 : 0;
          Problem x({1, T, 2, D}, {.pattern = pattern,
                                   .k = pattern == Pattern::full ? 0 : 5,
                                   .global_tokens = g,
                                   .score_scale = scale});
          // At 4 scores are as large as 10, and their rounding counts so much more.
          const double limit = scale > 1 ? 4 * float_limit : float_limit;
          for (int rung : rungs_of(pattern, gpu::Pass::forward))
            if (x.run.supports(rung)) x.forward(rung, limit), ++compared;
          if (pattern == Pattern::full) x.run.run(gpu::Pass::forward, 14);  // keeps the scores
          for (int rung : rungs_of(pattern, gpu::Pass::backward))
            if (x.run.supports(rung)) x.backward(rung, limit), ++compared;
        }
  CHECK(compared > 100);
}

TEST_CASE("cuda score scale: tensor cores at every precision") {
  if (!gpu::tensor_core_problem().empty()) return;
  for (double scale : {0.5, 4.0})
    for (auto [precision, limit] :
         {std::pair(Precision::tf32x3, 1e-5), {Precision::tf32, 1e-3}, {Precision::bf16, 1e-2}}) {
      Problem x({1, 70, 2, 64}, {.pattern = Pattern::full, .score_scale = scale});
      x.run.call.precision = precision;
      x.forward(18, limit), x.backward(19, scale > 1 ? 4 * limit : limit);
    }
}

TEST_CASE("cuda score scale: a call whose factor is no positive number is refused") {
  Problem x({1, 9, 1, 16}, {.pattern = Pattern::full});
  for (float scale : {0.f, -1.f, NAN, INFINITY}) {
    x.run.call.score_scale = scale;
    CHECK_THROWS_WITH_AS(gpu::attention(Pattern::full, gpu::Pass::forward, x.run.call),
                         doctest::Contains("must be positive and finite"), InputError);
  }
}
