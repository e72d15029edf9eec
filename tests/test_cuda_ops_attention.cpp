// The trainer's attention on the device against the CPU's in double: every pattern, with dropout.
#include "attention/attention.h"
#include "cuda/ops/attention.h"
#include "cuda_ops_run.h"

namespace focus::test {

namespace {

// Forward, and in training backward, of one attention with the noise that the CPU's tape has.
struct DeviceAttention {
  gpu::DeviceLists lists;
  gpu::AttentionPlan plan;
  gpu::AttentionPlan::Kept kept;
  gpu::DeviceArray<char> memory;
  gpu::DeviceArray<uint64_t> seeds;
  gpu::DeviceArray<uint32_t> step;
  gpu::DropoutDraw random, mask;
  gpu::Streams streams;

  DeviceAttention(const AttentionSettings& a, int B, int T, int D, const Noise& noise)
      : lists(a, T),
        plan(a, {}, B, T, D, Precision::fp32, noise.on, lists),
        seeds(std::vector<uint64_t>{noise.seed}),
        step(std::vector<uint32_t>{noise.step}) {
    gpu::Layout measured;
    const size_t scratch_bytes = plan.scratch_bytes(plan.take_kept(measured));
    measured.take<char>(scratch_bytes);
    memory = gpu::DeviceArray<char>(measured.used());
    memory.poison();
    gpu::Layout layout(memory.data());
    kept = plan.take_kept(layout);
    scratch = layout.take<char>(scratch_bytes);
    uint32_t site = noise.next_site;
    if (a.pattern == Pattern::random)
      random = gpu::dropout_draw(seeds.data(), step.data(), site++, 0);
    if (plan.drops()) mask = gpu::dropout_draw(seeds.data(), step.data(), site++, a.dropout);
  }
  void forward(const OnDevice& d) {
    plan.forward(kept, d.x[0].data(), d.x[1].data(), d.x[2].data(), d.y.data(), random, mask,
                 streams, scratch);
    streams.wait();
  }
  void backward(OnDevice& d) {
    plan.backward(kept, d.x[0].data(), d.x[1].data(), d.x[2].data(), d.y.data(), d.dy.data(),
                  d.dx[0].data(), d.dx[1].data(), d.dx[2].data(), streams, scratch);
    streams.wait();
  }
  char* scratch = nullptr;
};

void check_attention(const std::string& what, const AttentionSettings& settings, int B, int T,
                     int D, const Noise& noise, double units = 60) {
  const Shape shape{B, T, settings.heads * D};
  DeviceAttention device(settings, B, T, D, noise);
  same_on_device(
      what, {shape, shape, shape}, "sss",
      [&](auto& tape, const auto& x) { return attention(tape, x[0], x[1], x[2], settings); },
      [&](OnDevice& d) { device.forward(d), device.backward(d); }, units, noise);
}

}  // namespace

TEST_CASE("device: attention of every pattern, trained with dropout") {
  struct Size {
    int B, T, H, D, k;
  };
  for (const Size& s : {Size{2, 7, 2, 5, 3},
                        {1, 40, 1, 64, 5},
                        {1, 70, 1, 9, 4},
                        {2, 70, 2, 16, 4},
                        {1, 70, 1, 64, 5},
                        {1, 64, 2, 128, 5},
                        {1, 1, 3, 2, 1}})
    for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::block, Pattern::topk,
                            Pattern::bottomk, Pattern::random})
      for (double p : {0.0, 0.3}) {
        const bool globals = is_positional(pattern) && s.T > 5;
        const AttentionSettings settings{pattern, s.k, globals ? 2 : 0, s.H, p};
        check_attention(str(name_of(pattern), " of ", s.T, " tokens, dropout ", p), settings, s.B,
                        s.T, s.D, {true, 0xfeedull, 4, 2});
      }
}

TEST_CASE("device: causal attention, trained with dropout") {
  struct Size {
    int B, T, H, D, k;
  };
  for (const Size& s : {Size{2, 7, 2, 5, 3},
                        {1, 40, 1, 64, 5},
                        {2, 70, 2, 16, 4},
                        {1, 70, 1, 9, 33},
                        {1, 64, 2, 128, 5},
                        {1, 64, 1, 128, 32},
                        {1, 43, 2, 64, 21},
                        {1, 1, 3, 2, 1},
                        {1, 20, 1, 120, 18}})
    for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::topk})
      for (double p : {0.0, 0.3})
        check_attention(str("causal ", name_of(pattern), " of ", s.T, " tokens, dropout ", p),
                        {pattern, s.k, 0, s.H, p, 1, true}, s.B, s.T, s.D, {true, 0xfeedull, 4, 2});
}

TEST_CASE("device: attention with a factor on its scores") {
  for (double scale : {0.5, 4.0})
    for (int T : {11, 70})
      for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::block, Pattern::topk,
                              Pattern::bottomk, Pattern::random})
        check_attention(str(name_of(pattern), " of ", T, " tokens, scale ", scale),
                        {pattern, 4, 0, 1, 0.2, scale}, 1, T, 16, {true, 0xfeedull, 4, 2}, 240);
}

TEST_CASE("device: random attention in evaluation draws the same keys for every step") {
  // Evaluation has no seed of its own.
  const AttentionSettings settings{Pattern::random, 4, 0, 1, 0.2};
  for (uint32_t step : {0u, 9u}) {
    const OperationInputs in({{2, 11, 6}, {2, 11, 6}, {2, 11, 6}}, "sss");
    const OperationResult wanted = on_tape(
        in, [&](auto& tape, const auto& x) { return attention(tape, x[0], x[1], x[2], settings); });
    OnDevice d(in, {2, 11, 6});
    DeviceAttention device(settings, 2, 11, 6, {false, 0xfeedull, step, 0});
    device.forward(d);
    const std::vector<float> got = d.y.host();
    const std::string far = difference("random", {2, 11, 6}, got.data(), wanted.output, 60);
    CHECK_MESSAGE(far.empty(), far);
  }
}

TEST_CASE("device: attention of short sequences in evaluation, a block for each") {
  for (const int T : {1, 7, 16, 33, 40, 47, 64})
    for (const int k : {0, 1, 5, 32}) {
      if (k > T) continue;
      for (const Pattern pattern : {Pattern::topk, Pattern::bottomk}) {
        const bool all = k == 0;
        const AttentionSettings settings{all ? Pattern::full : pattern,  k, 0, 2, 0.2, 1.5,
                                         all && pattern == Pattern::topk};
        const int D = T % 8 == 0 ? 64 : 128;
        const Shape shape{3, T, 2 * D};
        const OperationInputs in({shape, shape, shape}, "sss");
        const OperationResult wanted = on_tape(in, [&](auto& tape, const auto& x) {
          return attention(tape, x[0], x[1], x[2], settings);
        });
        OnDevice d(in, shape);
        DeviceAttention device(settings, 3, T, D, {});
        device.forward(d);
        const std::vector<float> got = d.y.host();
        const std::string far = difference(str(name_of(settings.pattern), " of ", T, ", k ", k),
                                           shape, got.data(), wanted.output, 60);
        CHECK_MESSAGE(far.empty(), far);
      }
    }
}

TEST_CASE("device: of equal scores the lower index wins, and NaN shows") {
  const int T = 37;
  for (const int D : {1, 64})  // a warp for each query; a block for each head
    for (bool smallest : {false, true}) {
      // One channel counts: score of key j is value[j % 5]; query 1 meets a NaN.
      std::vector<double> q(size_t(T * D)), k(q), v(q);
      for (int j = 0; j < T; ++j)
        q[size_t(j * D)] = 1, k[size_t(j * D)] = j % 5, v[size_t(j * D)] = j;
      q[size_t(D)] = std::numeric_limits<double>::quiet_NaN();
      const Shape shape{1, T, D};
      OperationInputs in({shape, shape, shape}, "sss");
      in.values = {q, k, v};
      OnDevice d(in, shape);
      const AttentionSettings settings{smallest ? Pattern::bottomk : Pattern::topk, 3, 0, 1, 0};
      DeviceAttention device(settings, 1, T, D, {});
      device.forward(d);
      const std::vector<float> got = d.y.host();
      // The three lowest of the keys that score 4 (or 0), with equal weights.
      const float wanted = smallest ? (0 + 5 + 10) / 3.f : (4 + 9 + 14) / 3.f;
      for (int i = 0; i < T; ++i) {
        if (i == 1)
          CHECK(std::isnan(got[size_t(D)]));
        else
          CHECK(std::abs(got[size_t(i * D)] - wanted) < 1e-5f);
      }
    }
}

}  // namespace focus::test
