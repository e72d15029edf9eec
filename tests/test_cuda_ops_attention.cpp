// The trainer's attention on the device against the CPU's in double: every pattern, with dropout.
#include "attention/attention.h"
#include "cuda_ops_run.h"

namespace focus::test {

TEST_CASE("device: attention of every pattern, trained with dropout") {
  struct Size {
    int B, T, H, D, k;
  };
  for (const Size& s : {Size{2, 7, 2, 5, 3},
                        {1, 40, 1, 64, 5},
                        {1, 70, 1, 9, 4},
                        {2, 70, 2, 16, 4},
                        {1, 70, 1, 64, 5},
                        {1, 1, 3, 2, 1}})
    for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::block, Pattern::topk,
                            Pattern::bottomk, Pattern::random})
      for (double p : {0.0, 0.3}) {
        const bool globals = is_positional(pattern) && s.T > 5;
        const AttentionSettings settings{pattern, s.k, globals ? 2 : 0, s.H, p};
        const Shape shape{s.B, s.T, s.H * s.D};
        same_on_device(
            str(name_of(pattern), " of ", s.T, " tokens, dropout ", p), {shape, shape, shape},
            [&](auto& tape, const auto& x) { return attention(tape, x[0], x[1], x[2], settings); },
            60, {true, 0xfeedull, 4, 2});
      }
}

TEST_CASE("device: attention with a factor on its scores") {
  for (double scale : {0.5, 4.0})
    for (int T : {11, 70})
      for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::block, Pattern::topk,
                              Pattern::bottomk, Pattern::random}) {
        const AttentionSettings settings{pattern, 4, 0, 1, 0.2, scale};
        const Shape shape{1, T, 16};
        same_on_device(
            str(name_of(pattern), " of ", T, " tokens, scale ", scale), {shape, shape, shape},
            [&](auto& tape, const auto& x) { return attention(tape, x[0], x[1], x[2], settings); },
            240, {true, 0xfeedull, 4, 2});
      }
}

TEST_CASE("device: random attention in evaluation draws the same keys for every step") {
  const AttentionSettings settings{Pattern::random, 4, 0, 1, 0.2};
  same_on_device(
      "random", {{2, 11, 6}, {2, 11, 6}, {2, 11, 6}},
      [&](auto& tape, const auto& x) { return attention(tape, x[0], x[1], x[2], settings); }, 60,
      {false, 0xfeedull, 9, 0});
}

TEST_CASE("device: of equal scores the lower index wins, and NaN shows") {
  gpu::CudaOps device;
  Workers workers;
  Tape<float> tape(workers, &device);
  const int T = 37;
  for (bool smallest : {false, true}) {
    // One channel: score of key j is value[j % 5]; query 1 meets a NaN.
    std::vector<float> q(size_t(T), 1.f), k, v;
    for (int j = 0; j < T; ++j) k.push_back(float(j % 5)), v.push_back(float(j));
    q[1] = std::numeric_limits<float>::quiet_NaN();
    const gpu::DeviceArray<float> dq(q), dk(k), dv(v);
    const Shape shape{1, T, 1};
    tape.reset(false);
    const Tensor<float> o = attention(tape, {shape, dq.data(), nullptr},
                                      {shape, dk.data(), nullptr}, {shape, dv.data(), nullptr},
                                      {smallest ? Pattern::bottomk : Pattern::topk, 3, 0, 1, 0});
    std::vector<float> got(size_t(T), 0.f);
    device.download(got.data(), o.data, got.size() * sizeof(float));
    // The three lowest of the keys that score 4 (or 0), with equal weights.
    const float wanted = smallest ? (0 + 5 + 10) / 3.f : (4 + 9 + 14) / 3.f;
    for (int i = 0; i < T; ++i) {
      if (i == 1)
        CHECK(std::isnan(got[1]));
      else
        CHECK(std::abs(got[size_t(i)] - wanted) < 1e-5f);
    }
  }
}

}  // namespace focus::test
