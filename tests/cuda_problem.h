// An attention problem for the kernels' stage tests: random numbers, what should come, a run.
#pragma once

#include <algorithm>

#include "cuda_run.h"

namespace focus::test {

struct Problem {
  Sizes s;
  Numbers q, k, v, d_o;
  AttentionResult wanted;
  KernelRun run;

  // `larger`: the queries' factor, for scores that exp cannot take as they are.
  explicit Problem(const Sizes& sizes, const AttentionSettings& a = {}, double larger = 1)
      : Problem(sizes, a, times(normal_numbers(sizes, 1), larger), normal_numbers(sizes, 2)) {}
  Problem(const Sizes& sizes, const AttentionSettings& a, const Numbers& queries,
          const Numbers& keys)
      : s(sizes),
        q(queries),
        k(keys),
        v(normal_numbers(s, 3)),
        d_o(normal_numbers(s, 4)),
        wanted(reference_attention(s, q, k, v, reference_mask(a, s, q, k), {}, 1, d_o)),
        run(s, a.pattern, a.k, a.global_tokens, q, k, v, d_o) {}

  static Numbers times(Numbers x, double factor) {
    for (double& value : x) value = double(float(value * factor));
    return x;
  }
  std::string compare(const char* what, const gpu::DeviceArray<float>& got,
                      const Numbers& numbers) const {
    const std::string name = str(what, " at (B,T,H,D) = (", s.B, ",", s.T, ",", s.H, ",", s.D, ")");
    return difference(name, s.shape(), got.host().data(), numbers, 64);
  }
  Numbers wanted_lse() const {
    Numbers lse;
    for (int u = 0; u < s.units(); ++u)
      for (int i = 0; i < s.T; ++i) {
        double top = -INFINITY, sum = 0;
        for (int j = 0; j < s.T; ++j)
          top = std::max(top, reference_score(s, q, k, u, i, j) / std::sqrt(double(s.D)));
        for (int j = 0; j < s.T; ++j)
          sum += std::exp(reference_score(s, q, k, u, i, j) / std::sqrt(double(s.D)) - top);
        lse.push_back(top + std::log(sum));
      }
    return lse;
  }
};

inline void check_forward(Problem& x, int rung) {
  x.run.run(gpu::Pass::forward, rung);
  CHECK(x.compare(str("rung ", rung, " o").c_str(), x.run.o, x.wanted.o) == "");
}
// After a forward.
inline void check_backward(Problem& x, int rung) {
  x.run.run(gpu::Pass::backward, rung);
  CHECK(x.compare(str("rung ", rung, " dq").c_str(), x.run.dq, x.wanted.dq) == "");
  CHECK(x.compare(str("rung ", rung, " dk").c_str(), x.run.dk, x.wanted.dk) == "");
  CHECK(x.compare(str("rung ", rung, " dv").c_str(), x.run.dv, x.wanted.dv) == "");
}

}  // namespace focus::test
