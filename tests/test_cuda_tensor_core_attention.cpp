// Dense attention on tensor cores (rungs 18 and 19) against the reference in double: with an upper
// limit, and with a floor, which a kernel that silently computed in float32 would fall below.
#include <cstring>

#include "cuda_run.h"

using namespace focus;
using namespace focus::test;

namespace {

constexpr Precision below_fp32[] = {Precision::tf32x3, Precision::tf32, Precision::bf16};

struct Limits {
  double least, most;
};
Limits limits_of(Precision precision) {
  switch (precision) {
    case Precision::tf32x3:
      return {0, 1e-5};
    case Precision::tf32:
      return {5e-5, 1e-3};
    case Precision::bf16:
      return {4e-4, 1e-2};
    case Precision::fp32:
      break;
  }
  return {0, 1e-5};
}

struct Problem {
  Sizes s;
  Numbers q, k, v, d_o;
  Mask keep;
  double scale = 1;
  AttentionResult wanted;
  gpu::DeviceArray<unsigned> words;
  KernelRun run;

  Problem(const Sizes& sizes, Precision precision, double dropout = 0)
      : Problem(sizes, precision, dropout, normal_numbers(sizes, 1), normal_numbers(sizes, 2),
                normal_numbers(sizes, 3)) {}
  Problem(const Sizes& sizes, Precision precision, double dropout, const Numbers& q_numbers,
          const Numbers& k_numbers, const Numbers& v_numbers)
      : s(sizes),
        q(q_numbers),
        k(k_numbers),
        v(v_numbers),
        d_o(normal_numbers(s, 4)),
        run(s, Pattern::full, 0, 0, q, k, v, d_o) {
    run.call.precision = precision;
    if (dropout > 0) drop(dropout);
    wanted = reference_attention(s, q, k, v, Mask(s.pairs(), 1), keep, scale, d_o);
  }

  void drop(double dropout) {
    Rng rng(99, Stream::analysis);
    const int per_row = (s.T + 31) / 32;
    // What lies beyond the row's last key is noise.
    std::vector<unsigned> bits(size_t(s.units() * s.T * per_row), 0xAAAAAAAAu);
    keep.resize(s.pairs());
    scale = double(float(1 / (1 - dropout)));
    for (int u = 0; u < s.units(); ++u)
      for (int i = 0; i < s.T; ++i)
        for (int j = 0; j < s.T; ++j) {
          const bool kept = rng.uniform() >= dropout;
          keep[s.pair(u, i, j)] = kept;
          unsigned& word = bits[size_t((u * s.T + i) * per_row + j / 32)];
          word = (word & ~(1u << (j % 32))) | unsigned(kept) << (j % 32);
        }
    words = gpu::DeviceArray<unsigned>(bits);
    run.call.keep = {words.data(), per_row, float(scale)};
  }

  // Forward and backward by rungs 18 and 19, which must be the front's choice.
  void both() {
    for (auto* x : {&run.o, &run.lse, &run.dq, &run.dk, &run.dv}) KernelRun::poison_array(*x);
    CHECK(run.run(gpu::Pass::forward) == 18);
    CHECK(run.run(gpu::Pass::backward) == 19);
  }
  void check(const std::string& what) {
    both();
    // A query has weights of about 1 where there is one key: then dq and dk are 0.
    const Limits limits = limits_of(run.call.precision);
    const auto one = [&](const char* name, const gpu::DeviceArray<float>& got,
                         const Numbers& numbers) {
      double size = 0;
      for (double x : numbers) size += x * x;
      const double error = size > 0 ? relative_error(got, numbers) : 0;
      INFO(str(what, ", ", name_of(run.call.precision), ", (B,T,H,D) = (", s.B, ",", s.T, ",", s.H,
               ",", s.D, "), ", name, ": ", error));
      CHECK(error <= limits.most);
      if (size > 0 && s.T > 1) CHECK(error >= limits.least);
    };
    one("o", run.o, wanted.o);
    one("dv", run.dv, wanted.dv);
    one("dq", run.dq, wanted.dq);
    one("dk", run.dk, wanted.dk);
    one("lse", run.lse, lse());
  }
  Numbers lse() const {
    Numbers result;
    for (int u = 0; u < s.units(); ++u)
      for (int i = 0; i < s.T; ++i) {
        double sum = 0;
        for (int j = 0; j < s.T; ++j)
          sum += std::exp(reference_score(s, q, k, u, i, j) / std::sqrt(double(s.D)));
        result.push_back(std::log(sum));
      }
    return result;
  }
};

bool tensor_cores() {
  return gpu::tensor_core_problem().empty();
}

}  // namespace

TEST_CASE("cuda tensor-core attention: output and gradients at awkward sizes") {
  if (!tensor_cores()) return;
  struct Case {
    int B, T, H, D;
    double dropout;
  };
  std::vector<Case> cases{{1, 1, 1, 64, 0},   {2, 7, 2, 16, 0.3},   {1, 31, 1, 20, 0},
                          {1, 63, 2, 32, 0.1}, {1, 65, 1, 36, 0.2},  {1, 129, 1, 64, 0.1},
                          {1, 100, 2, 48, 0}};
  if (!small_sizes())
    for (int T : {64, 128, 200, 257, 600}) cases.push_back({3, T, 2, 64, 0.1});
  for (const Precision precision : below_fp32)
    for (const Case& c : cases)
      Problem({c.B, c.T, c.H, c.D}, precision, c.dropout).check(str("dropout ", c.dropout));
}
