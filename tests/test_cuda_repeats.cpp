// All patterns: the same bits every time, whatever the order of threads; NaN and infinite values in
// the backward pass are seen where they belong and nowhere else.
#include "cuda_run.h"

using namespace focus;
using namespace focus::test;

namespace {

constexpr Pattern patterns[] = {Pattern::full, Pattern::topk, Pattern::banded, Pattern::block};

struct Problem {
  Sizes s{2, small_sizes() ? 70 : 600, 2, 64};
  Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2), v = normal_numbers(s, 3),
          d_o = normal_numbers(s, 4);
  KernelRun run_of(Pattern pattern) const {
    const bool local = pattern == Pattern::banded || pattern == Pattern::block;
    return KernelRun(s, pattern, pattern == Pattern::full ? 0 : 5, local ? 2 : 0, q, k, v, d_o);
  }
};

// Does row (unit, t) of x hold a number that is not finite?
bool sick(const Sizes& s, const std::vector<float>& x, int unit, int t) {
  for (int c = 0; c < s.D; ++c)
    if (!std::isfinite(x[s.at(unit, t, c)])) return true;
  return false;
}

}  // namespace

TEST_CASE("cuda repeats: the same bits every time, every deterministic rung") {
  const Problem in;
  int repeated = 0;
  for (Pattern pattern : patterns)
    for (const gpu::Rung& rung : gpu::ladder()) {
      if (!rung.has_pattern(pattern) || !rung.deterministic) continue;
      CAPTURE(rung.number);
      KernelRun run = in.run_of(pattern);
      if (!run.supports(rung.number)) continue;  // those on tensor cores have tests of their own
      run.run(gpu::Pass::forward);
      std::vector<float> first[4];
      // The slowest rungs less often.
      const int repeats = small_sizes() ? 2 : rung.number <= 2 ? 10 : 100;
      for (int repeat = 0; repeat < repeats; ++repeat) {
        for (auto* x : {&run.dq, &run.dk, &run.dv}) KernelRun::poison_array(*x);
        if (rung.pass == gpu::Pass::forward) KernelRun::poison_array(run.o);
        run.run(rung.pass, rung.number);
        int i = 0;
        for (auto* x : {&run.o, &run.dq, &run.dk, &run.dv}) {
          const bool written = (x == &run.o) == (rung.pass == gpu::Pass::forward);
          const std::vector<float> host = x->host();
          if (repeat == 0) first[i] = host;
          if (written) {
            CHECK(std::isfinite(host[0]));
            CHECK(host == first[i]);
            ++repeated;
          }
          ++i;
        }
      }
    }
  CHECK(repeated > 40);
}

TEST_CASE("cuda repeats: NaN and infinity in dO reach what they must, and no other head") {
  const Problem clean;
  for (Pattern pattern : patterns)
    for (const gpu::Rung& rung : gpu::ladder()) {
      if (!rung.has_pattern(pattern) || rung.pass != gpu::Pass::backward) continue;
      KernelRun well = clean.run_of(pattern);
      if (!well.supports(rung.number)) continue;
      well.run(gpu::Pass::forward), well.run(gpu::Pass::backward, rung.number);
      for (const double value : {double(NAN), double(INFINITY)}) {
        const std::string what = str(name_of(pattern), " rung ", rung.number, " dO ", value);
        Problem in;
        const int t = 33, unit = 1;
        in.d_o[in.s.at(unit, t, 7)] = value;
        KernelRun run = in.run_of(pattern);
        run.run(gpu::Pass::forward), run.run(gpu::Pass::backward, rung.number);
        // This query's own gradient, and that of some value that it looked at.
        CHECK_MESSAGE(sick(in.s, run.dq.host(), unit, t), what);
        int values = 0;
        for (int j = 0; j < in.s.T; ++j) values += sick(in.s, run.dv.host(), unit, j);
        CHECK_MESSAGE(values >= (pattern == Pattern::full ? in.s.T : 1), what);
        // Atomics add in any order, so other heads are close there, else the same.
        for (auto [got, wanted] :
             {std::pair{&run.dq, &well.dq}, {&run.dk, &well.dk}, {&run.dv, &well.dv}}) {
          const std::vector<float> a = got->host(), b = wanted->host();
          for (int u = 0; u < in.s.units(); ++u) {
            if (u == unit) continue;
            int wrong = 0;
            for (int j = 0; j < in.s.T; ++j)
              for (int c = 0; c < in.s.D; ++c)
                wrong += !(std::abs(a[in.s.at(u, j, c)] - b[in.s.at(u, j, c)]) <=
                           1e-5f * (1 + std::abs(b[in.s.at(u, j, c)])));
            CHECK_MESSAGE(wrong == 0, what);
          }
        }
      }
    }
}

TEST_CASE("cuda repeats: a NaN in a query, from forward to backward") {
  for (Pattern pattern : patterns) {
    Problem in;
    const int t = 33, unit = 2;
    in.q[in.s.at(unit, t, 3)] = NAN;
    for (const gpu::Rung& rung : gpu::ladder()) {
      if (!rung.has_pattern(pattern) || rung.pass != gpu::Pass::backward) continue;
      const std::string what = str(name_of(pattern), " rung ", rung.number);
      KernelRun run = in.run_of(pattern);
      if (!run.supports(rung.number)) continue;
      run.run(gpu::Pass::forward);
      run.run(gpu::Pass::backward, rung.number);
      CHECK_MESSAGE(sick(in.s, run.o.host(), unit, t), what);
      CHECK_MESSAGE(sick(in.s, run.dq.host(), unit, t), what);
      for (int u = 0; u < in.s.units(); ++u)
        if (u != unit) CHECK_MESSAGE(!sick(in.s, run.dk.host(), u, t), what);
    }
  }
}
