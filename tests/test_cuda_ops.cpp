// Every operation's kernels against the CPU's operation in double.
#include "cuda_ops_run.h"
#include "ops/cross_entropy.h"
#include "ops/dropout.h"
#include "ops/embedding.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "ops/mean_tokens.h"

namespace focus::test {

namespace {

constexpr Noise training{true, 0x123456789abcdefull, 5, 3};

// The noise of a pass, where kernels read it.
struct DeviceNoise {
  gpu::DeviceArray<uint64_t> seeds;
  gpu::DeviceArray<uint32_t> step;
  uint32_t site;
  explicit DeviceNoise(const Noise& noise)
      : seeds(std::vector<uint64_t>{noise.seed}),
        step(std::vector<uint32_t>{noise.step}),
        site(noise.next_site) {}
  gpu::DropoutDraw draw(double p) const {
    return gpu::dropout_draw(seeds.data(), step.data(), site, p);
  }
};

std::vector<int> ids(size_t n, int below) {
  std::vector<int> all;
  Rng rng(7, Stream::analysis, uint32_t(n));
  for (size_t i = 0; i < n; ++i) all.push_back(int(rng.below(uint32_t(below))));
  return all;
}

}  // namespace

TEST_CASE("device: linear") {
  struct Size {
    int B, T, in, out;
  };
  for (const Size& s : {Size{1, 1, 1, 1},
                        {3, 7, 5, 9},
                        {2, 70, 64, 64},
                        {5, 39, 20, 33},
                        {1, 3, 130, 66},
                        {4, 33, 64, 10},
                        {5, 52, 20, 132},    // large tiles of y
                        {5, 52, 132, 20},    // of dx
                        {5, 55, 132, 136},   // of all
                        {1, 290, 129, 131},  // of none: no whole vectors
                        {1, 5, 3, 1030},     // dx in parts
                        {83, 100, 8, 200}})  // chunks of more than 128 rows
    for (const bool accumulate : {false, true}) {
      const gpu::LinearSize size{s.B * s.T, s.in, s.out};
      const gpu::DeviceArray<float> parts = scratch(gpu::linear_part_floats({}, size));
      same_on_device(
          str("linear ", s.in, " to ", s.out), {{s.B, s.T, s.in}, {s.out, s.in}, {s.out}},
          accumulate ? "aaa" : "saa",
          [](auto& tape, const auto& x) { return linear(tape, x[0], x[1], x[2]); },
          [&](OnDevice& d) {
            gpu::linear_forward({}, size, d.x[0].data(), {d.x[1].data(), d.x[2].data()}, d.y.data(),
                                nullptr);
            gpu::linear_backward({}, size, d.x[0].data(), d.x[1].data(), d.dy.data(),
                                 d.dx[0].data(), accumulate, {d.dx[1].data(), d.dx[2].data()},
                                 parts.data(), nullptr);
          },
          20);
    }
}

TEST_CASE("device: linear of several runs, each with its own weights") {
  // Two runs' parameters lie 25 numbers apart; run 1 alone is what run 1 beside run 0 is.
  const gpu::LinearSize size{13, 3, 5};
  const gpu::Runs both{2, 25};
  const auto numbers = [](size_t n, uint32_t which) {
    return gpu::DeviceArray<float>(as<float>(random_numbers(n, which)));
  };
  const auto x = numbers(2 * 13 * 3, 1), w = numbers(2 * 25, 2), dy = numbers(2 * 13 * 5, 3);
  const auto run = [&](const gpu::Runs& runs, size_t first) {
    std::vector<float> all;
    const gpu::DeviceArray<float> y = scratch(13 * 5 * size_t(runs.count)),
                                  dx = scratch(13 * 3 * size_t(runs.count)),
                                  parts = scratch(gpu::linear_part_floats(runs, size));
    gpu::DeviceArray<float> dw(std::vector<float>(2 * 25, 0.25f));
    const float* from = w.data() + first * 25;
    gpu::linear_forward(runs, size, x.data() + first * 39, {from, from + 15}, y.data(), nullptr);
    gpu::linear_backward(runs, size, x.data() + first * 39, from, dy.data() + first * 65, dx.data(),
                         false, {dw.data(), dw.data() + 15}, parts.data(), nullptr);
    const size_t last = size_t(runs.count) - 1;  // of the runs: its output and gradients
    const auto add = [&](const std::vector<float>& of_all, size_t each, size_t n) {
      const auto at = of_all.begin() + ptrdiff_t(last * each);
      all.insert(all.end(), at, at + ptrdiff_t(n));
    };
    add(y.host(), 65, 65), add(dx.host(), 39, 39), add(dw.host(), 25, 20);
    return all;
  };
  const std::vector<float> together = run(both, 0), alone = run({1, 25}, 1);
  for (float number : alone) CHECK(std::isfinite(number));
  CHECK(together == alone);
}

TEST_CASE("device: layer norm") {
  for (int C : {1, 5, 32, 64, 100})
    for (const bool accumulate : {false, true})
      same_on_device(
          str("layer norm of ", C), {{3, 7, C}}, accumulate ? "a" : "s",
          [](auto& tape, const auto& x) { return layer_norm(tape, x[0], 1e-5); },
          [&](OnDevice& d) {
            const gpu::DeviceArray<float> rstd = scratch(21);
            gpu::layer_norm_forward(21, C, 1e-5, d.x[0].data(), d.y.data(), rstd.data(), nullptr);
            gpu::layer_norm_backward(21, C, d.y.data(), rstd.data(), d.dy.data(), d.dx[0].data(),
                                     accumulate, nullptr);
          },
          C == 1 ? 400 : 40);
}

TEST_CASE("device: activations") {
  for (Activation a : {Activation::relu, Activation::gelu, Activation::mish})
    same_on_device(
        name_of(a), {{3, 100}}, "s",
        [a](auto& tape, const auto& x) { return activate(tape, x[0], a); },
        [a](OnDevice& d) {
          gpu::activation_forward(a, 300, d.x[0].data(), d.y.data(), nullptr);
          gpu::activation_backward(a, 300, d.x[0].data(), d.dy.data(), d.dx[0].data(), nullptr);
        },
        8);
}

TEST_CASE("device: dropout draws the CPU's mask, to the bit") {
  const DeviceNoise noise(training);
  for (double p : {0.01, 0.3, 0.999}) {
    same_on_device(
        str("dropout ", p), {{3, 7, 5}}, "s",
        [p](auto& tape, const auto& x) { return dropout(tape, x[0], p); },
        [&](OnDevice& d) {
          gpu::add_dropout({}, 105, nullptr, d.x[0].data(), noise.draw(p), d.y.data(), nullptr);
          gpu::add_dropout({}, 105, nullptr, d.dy.data(), noise.draw(p), d.dx[0].data(), nullptr);
        },
        4, training);
    same_on_device(
        str("residual + dropout ", p), {{4, 64, 3}, {4, 64, 3}}, "ss",
        [p](auto& tape, const auto& x) { return add_dropout(tape, x[0], x[1], p); },
        [&](OnDevice& d) {
          gpu::add_dropout({}, 768, d.x[0].data(), d.x[1].data(), noise.draw(p), d.y.data(),
                           nullptr);
          gpu::add_dropout({}, 768, nullptr, d.dy.data(), {}, d.dx[0].data(), nullptr);
          gpu::add_dropout({}, 768, nullptr, d.dy.data(), noise.draw(p), d.dx[1].data(), nullptr);
        },
        4, training);
  }
  same_on_device(
      "a tensor added to itself, in its place", {{5, 9}}, "s",
      [](auto& tape, const auto& x) { return add_dropout(tape, x[0], x[0], 0.4); },
      [&](OnDevice& d) {
        gpu::add_dropout({}, 45, d.x[0].data(), d.x[0].data(), noise.draw(0.4), d.x[0].data(),
                         nullptr);
        gpu::add_dropout({}, 45, d.dy.data(), d.dy.data(), noise.draw(0.4), d.dx[0].data(),
                         nullptr);
        d.y.set(d.x[0].host());
      },
      4, training);
  same_on_device(
      "dropout in evaluation", {{5, 9}, {5, 9}}, "ss",
      [](auto& tape, const auto& x) { return add_dropout(tape, x[0], x[1], 0.4); },
      [&](OnDevice& d) {
        gpu::add_dropout({}, 45, d.x[0].data(), d.x[1].data(), {}, d.y.data(), nullptr);
        for (auto& dx : d.dx)
          gpu::add_dropout({}, 45, nullptr, d.dy.data(), {}, dx.data(), nullptr);
      },
      4);
}

TEST_CASE("device: embedding") {
  for (int V : {1, 6, 300}) {
    const std::vector<int> tokens = ids(7 * 41, V);
    const gpu::DeviceArray<int> on_device(tokens);
    const gpu::EmbeddingSize size{7, 41, V, 33};
    same_on_device(
        str("embedding of ", V), {{V, 33}, {41, 33}}, "aa",
        [&](auto& tape, const auto& x) {
          auto positions = x[1];
          positions.gradient = nullptr;
          return embedding(tape, tokens.data(), 7, x[0], positions);
        },
        [&](OnDevice& d) {
          const gpu::DeviceArray<float> parts = scratch(gpu::embedding_part_floats({}, size));
          gpu::embedding_forward({}, size, on_device.data(), d.x[0].data(), d.x[1].data(),
                                 d.y.data(), nullptr);
          gpu::embedding_backward({}, size, on_device.data(), d.dy.data(), d.dx[0].data(),
                                  parts.data(), nullptr);
        },
        60);
  }
}

TEST_CASE("device: mean over tokens") {
  for (int T : {1, 7, 40})
    same_on_device(
        str("mean of ", T), {{3, T, 35}}, "s",
        [](auto& tape, const auto& x) { return mean_tokens(tape, x[0]); },
        [T](OnDevice& d) {
          gpu::mean_tokens_forward(3, T, 35, d.x[0].data(), d.y.data(), nullptr);
          gpu::mean_tokens_backward(3, T, 35, d.dy.data(), d.dx[0].data(), nullptr);
        },
        8);
}

TEST_CASE("device: cross-entropy") {
  for (int N : {1, 3, 40, 300}) {  // more than 256: not in double
    const std::vector<int> labels = ids(29, N);
    const OperationInputs in({{29, N}}, "s");
    Workers workers;
    Tape<double> tape(workers);
    Parameter<double> logits("x", {29, N});
    logits.value = in.values[0];
    tape.reset(true);
    const Tensor<double> loss = cross_entropy(tape, logits.tensor(), labels.data());
    std::vector<double> wanted{loss.data[0]};
    tape.backward(loss);
    wanted.insert(wanted.end(), logits.gradient_value.begin(), logits.gradient_value.end());

    const gpu::DeviceArray<float> x(as<float>(in.values[0])), on_device = scratch(1);
    const gpu::DeviceArray<double> rows(29), judged(29);
    const gpu::DeviceArray<uint8_t> right(29);
    const gpu::DeviceArray<int> d_labels(labels);
    gpu::judge_logits(29, N, x.data(), d_labels.data(), judged.data(), right.data(), nullptr);
    gpu::cross_entropy(29, N, x.data(), d_labels.data(), 1.f / 29, rows.data(), nullptr);
    gpu::mean_loss({}, 29, rows.data(), on_device.data(), nullptr);
    CHECK(judged.host() == rows.host());
    for (size_t m = 0; m < 29; ++m) {
      const double* row = in.values[0].data() + m * size_t(N);
      CHECK(right.host()[m] == (std::max_element(row, row + N) - row == labels[m]));
    }
    std::vector<float> got = on_device.host();
    const std::vector<float> gradient = x.host();
    got.insert(got.end(), gradient.begin(), gradient.end());
    const std::string far =
        difference("loss and gradient", {int(got.size())}, got.data(), wanted, 8);
    CHECK_MESSAGE(far.empty(), far);
  }
}

}  // namespace focus::test
