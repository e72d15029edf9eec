// Dense attention on tensor cores (rungs 18 and 19) against the reference in double: with an upper
// limit, and with a floor, which a kernel that silently computed in float32 would fall below.
#include "cuda_run.h"

using namespace focus;
using namespace focus::test;

namespace {

constexpr Precision below_fp32[] = {Precision::tf32x3, Precision::tf32, Precision::bf16};

// Of output and gradients, and of the logarithm of a row's sum.
struct Limits {
  double least, most, least_lse;
};
Limits limits_of(Precision precision) {
  switch (precision) {
    case Precision::tf32x3:
      return {0, 1e-5, 0};
    case Precision::tf32:
      return {5e-5, 1e-3, 3e-6};
    case Precision::bf16:
      return {4e-4, 1e-2, 3e-5};
    case Precision::fp32:
      break;
  }
  return {0, 1e-5, 0};
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
    const Limits limits = limits_of(run.call.precision);
    const auto one = [&](const char* name, const gpu::DeviceArray<float>& got,
                         const Numbers& numbers, double least) {
      const double error = relative_error(got, numbers);
      INFO(str(what, ", ", name_of(run.call.precision), ", (B,T,H,D) = (", s.B, ",", s.T, ",", s.H,
               ",", s.D, "), ", name, ": ", error));
      CHECK(error <= limits.most);
      CHECK(error >= least);
    };
    one("o", run.o, wanted.o, limits.least);
    one("dv", run.dv, wanted.dv, limits.least);
    one("lse", run.lse, lse(), s.T > 1 ? limits.least_lse : 0);
    if (s.T == 1) {  // one key, with a weight of 1: nothing to learn for queries and keys
      for (auto* x : {&run.dq, &run.dk})
        for (float number : x->host()) CHECK(std::abs(number) <= 2 * limits.most);
      return;
    }
    one("dq", run.dq, wanted.dq, limits.least);
    one("dk", run.dk, wanted.dk, limits.least);
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
  std::vector<Case> cases{{1, 1, 1, 64, 0},    {2, 7, 2, 16, 0.3},  {1, 31, 1, 20, 0},
                          {1, 63, 2, 32, 0.1}, {1, 65, 1, 36, 0.2}, {1, 129, 1, 64, 0.1},
                          {1, 100, 2, 48, 0}};
  if (!small_sizes())
    for (int T : {64, 128, 200, 257, 600}) cases.push_back({3, T, 2, 64, 0.1});
  for (const Precision precision : below_fp32)
    for (const Case& c : cases)
      Problem({c.B, c.T, c.H, c.D}, precision, c.dropout).check(str("dropout ", c.dropout));
}

TEST_CASE("cuda tensor-core attention: numbers at the ends of the range, keys that weigh nothing") {
  if (!tensor_cores()) return;
  const Sizes s{1, 67, 1, 16};
  for (const Precision precision : below_fp32) {
    // Quarters and powers of two: every precision holds queries, keys and their products.
    for (double size : {0x1p-66, 32.0, 0x1p13}) {
      Numbers q = quarters(size_t(s.T * s.D), 1);
      for (double& x : q) x = double(float(x * size));
      Problem x(s, precision, 0, q, quarters(q.size(), 2), normal_numbers(s, 3));
      x.both();
      INFO(str(name_of(precision), ", size ", size));
      // A score of 1e5 is good to 1e-2 in float32; ties stay ties.
      const double limit = std::max(limits_of(precision).most, size > 1000 ? 1e-3 : 0);
      CHECK(too_far("o", x.run.o, x.wanted.o, limit) == "");
      CHECK(too_far("dv", x.run.dv, x.wanted.dv, size > 1000 ? 2e-2 : limit) == "");
    }
    // Scores of minus infinity; at 3xtf32 an infinite number becomes a NaN.
    for (double sign : {-1.0, 1.0}) {
      Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2);
      for (int t = 0; t < s.T; ++t) q[s.at(0, t, 0)] = 1;
      k[s.at(0, 0, 0)] = sign * INFINITY;
      KernelRun run(s, Pattern::full, 0, 0, q, k, normal_numbers(s, 3), normal_numbers(s, 4));
      run.call.precision = precision;
      run.run(gpu::Pass::forward, 18);
      for (float number : run.o.host())
        CHECK(std::isnan(number) == (sign > 0 || precision == Precision::tf32x3));
    }
    // Scores so low that 2^-lse is infinite, and a tile that is not full.
    Numbers q(size_t(s.T * s.D)), k(q.size());
    for (int t = 0; t < s.T; ++t) q[s.at(0, t, 0)] = 32, k[s.at(0, t, 0)] = -32 - t % 2;
    Problem low(s, precision, 0, q, k, normal_numbers(s, 3));
    low.both();
    CHECK(too_far("low o", low.run.o, low.wanted.o, limits_of(precision).most) == "");
    CHECK(too_far("low dv", low.run.dv, low.wanted.dv, limits_of(precision).most) == "");
    for (float number : low.run.dq.host()) CHECK(std::abs(number) <= 1);  // in double 0, nearly
  }
}

TEST_CASE("cuda tensor-core attention: NaN reaches its row, or all that score it, and no others") {
  if (!tensor_cores()) return;
  const Sizes s{1, 70, 2, 16};
  const auto nan_at = [&](const gpu::DeviceArray<float>& x, int unit, int t) {
    const std::vector<float> numbers = x.host();
    bool all = true, any = false;
    for (int c = 0; c < s.D; ++c) {
      const bool nan = std::isnan(numbers[s.at(unit, t, c)]);
      all = all && nan, any = any || nan;
    }
    CHECK(all == any);
    return any;
  };
  for (const Precision precision : below_fp32) {
    INFO(name_of(precision));
    Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2);
    q[s.at(0, 3, 5)] = NAN;
    Problem query(s, precision, 0.2, q, k, normal_numbers(s, 3));
    query.both();
    for (int unit = 0; unit < 2; ++unit)
      for (int t = 0; t < s.T; ++t) {
        CHECK(nan_at(query.run.o, unit, t) == (unit == 0 && t == 3));
        CHECK(nan_at(query.run.dq, unit, t) == (unit == 0 && t == 3));
        CHECK(nan_at(query.run.dk, unit, t) == (unit == 0));
      }
    q = normal_numbers(s, 1);
    k[s.at(0, 66, 0)] = NAN;
    Problem key(s, precision, 0, q, k, normal_numbers(s, 3));
    key.both();
    for (int unit = 0; unit < 2; ++unit)
      for (int t = 0; t < s.T; ++t) {
        CHECK(nan_at(key.run.o, unit, t) == (unit == 0));
        CHECK(nan_at(key.run.dv, unit, t) == (unit == 0));
      }
  }
}

TEST_CASE("cuda tensor-core attention: the same bits again, alone and among others") {
  if (!tensor_cores()) return;
  // So many heads that blocks of 128 queries fill the device, but not in one of their parts.
  const int parts = small_sizes() ? 3 : 40;
  const Sizes s{parts, 130, small_sizes() ? 1 : 2, 32};
  const size_t part = size_t(s.H * s.T * s.D);
  for (const Precision precision : below_fp32) {
    INFO(name_of(precision));
    Problem all(s, precision, 0.1);
    all.run.call.parts = parts;
    all.both();
    const std::vector<float> first[] = {all.run.o.host(), all.run.dq.host(), all.run.dk.host(),
                                        all.run.dv.host()};
    // With q, k and v kept for the backward: less to do, the same numbers.
    gpu::DeviceArray<unsigned> copies(gpu::copy_words(all.run.call));
    copies.poison();
    all.run.call.copies = copies.data();
    all.both();
    CHECK(all.run.o.host() == first[0]);
    CHECK(all.run.dq.host() == first[1]);
    CHECK(all.run.dk.host() == first[2]);
    CHECK(all.run.dv.host() == first[3]);
    const Sizes one{1, s.T, s.H, s.D};
    const auto last = [&](const Numbers& x) { return Numbers(x.end() - ptrdiff_t(part), x.end()); };
    KernelRun alone(one, Pattern::full, 0, 0, last(all.q), last(all.k), last(all.v), last(all.d_o));
    alone.call.precision = precision;
    alone.call.keep = all.run.call.keep;
    alone.call.keep.words += size_t((parts - 1) * s.H * s.T * alone.call.keep.per_row);
    alone.run(gpu::Pass::forward, 18);
    alone.run(gpu::Pass::backward, 19);
    int i = 0;
    for (auto* x : {&alone.o, &alone.dq, &alone.dk, &alone.dv}) {
      const std::vector<float>& wanted = first[i++];
      CHECK(x->host() == std::vector<float>(wanted.end() - ptrdiff_t(part), wanted.end()));
    }
  }
}

TEST_CASE("cuda tensor-core attention: what is not supported says why") {
  const auto refusal = [](int D, Precision precision) {
    const Sizes s{1, 9, 1, D};
    KernelRun run(s, Pattern::full, 0, 0, normal_numbers(s, 1), normal_numbers(s, 2),
                  normal_numbers(s, 3), normal_numbers(s, 4));
    run.call.precision = precision;
    std::string what;
    for (const gpu::Pass pass : {gpu::Pass::forward, gpu::Pass::backward}) {
      run.call.rung = pass == gpu::Pass::forward ? 18 : 19;
      try {
        gpu::attention(Pattern::full, pass, run.call);
        what += "ran";
      } catch (const InputError& error) {
        what = error.what();
      }
      run.call.rung = 0;
      run.run(pass);  // the front takes another
    }
    return what;
  };
  CHECK(refusal(16, Precision::fp32) ==
        "attention full: rung 19 (dense: tensor cores, scores recomputed) does not support this: "
        "for --precision 3xtf32, tf32 and bf16");
  CHECK(refusal(68, Precision::bf16).ends_with("width 68, more than 64"));
  CHECK(refusal(12, Precision::tf32).ends_with("width 12, not a multiple of 4 from 16 to 128"));
}
