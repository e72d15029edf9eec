// The fused steps of a transformer block against the CPU's operations in double, one by one; and
// several runs together against each alone, to the bit.
#include <cstring>
#include <tuple>

#include "attention/attention.h"
#include "cuda_ops_run.h"
#include "model/model.h"
#include "ops/cross_entropy.h"
#include "ops/dropout.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "train/placed_model.h"

namespace focus::test {

namespace {

// x, then for each block weight and bias of q, k, v, W_o and the MLP's two layers.
std::vector<Shape> block_shapes(int B, int T, int blocks) {
  std::vector<Shape> shapes{{B, T, 64}};
  for (int layer = 0; layer < 6 * blocks; ++layer) {
    shapes.push_back({64, 64});
    shapes.push_back({64});
  }
  return shapes;
}

// All blocks: fused on a device, operation by operation on the CPU.
template <class T>
Tensor<T> through_blocks(Tape<T>& tape, const std::vector<Tensor<T>>& in, const ModelSettings& s) {
  const double first_epsilon = 1e-3;
  const auto layer = [&](size_t l) { return Layer<T>{in[1 + 2 * l], in[2 + 2 * l]}; };
  const auto layers = [&](size_t l) { return std::array{layer(l), layer(l + 1), layer(l + 2)}; };
  const size_t end = 6 * size_t(s.blocks);
  Tensor<T> x = in[0];
  if (tape.device()) {
    auto [q, k, v] = tape.device()->normed_projections(tape, x, first_epsilon, layers(0));
    for (size_t l = 3; l + 3 < end; l += 6)
      std::tie(x, q, k, v) = std::tuple_cat(tape.device()->second_half_and_projections(
          tape, x, attention(tape, q, k, v, s.attention), layers(l), layers(l + 3), s));
    return tape.device()->second_half(tape, x, attention(tape, q, k, v, s.attention),
                                      layers(end - 3), s);
  }
  const auto apply = [&](size_t l, const Tensor<T>& a) {
    return linear(tape, a, layer(l).weight, layer(l).bias);
  };
  for (size_t l = 0; l < end; l += 6) {
    const Tensor<T> n = layer_norm(tape, x, l == 0 ? first_epsilon : s.layer_norm_epsilon);
    const Tensor<T> attended =
        attention(tape, apply(l, n), apply(l + 1, n), apply(l + 2, n), s.attention);
    const Tensor<T> middle = add_dropout(tape, x, apply(l + 3, attended), s.dropout);
    const Tensor<T> hidden =
        dropout(tape, apply(l + 4, layer_norm(tape, middle, s.layer_norm_epsilon)), s.dropout);
    x = add_dropout(tape, middle, apply(l + 5, activate(tape, hidden, s.activation)), s.dropout);
  }
  return x;
}

// Relative errors of the output, of x's gradient, of all weights' and all biases'.
std::array<double, 4> errors_of(const OperationResult& got, const OperationResult& wanted) {
  std::array<double, 4> error{}, size{};
  const auto add = [&](size_t part, const std::vector<double>& g, const std::vector<double>& w) {
    REQUIRE(g.size() == w.size());
    for (size_t i = 0; i < w.size(); ++i)
      error[part] += std::pow(g[i] - w[i], 2), size[part] += std::pow(w[i], 2);
  };
  add(0, got.output, wanted.output);
  for (size_t i = 0; i < wanted.gradients.size(); ++i)
    add(i == 0 ? 1 : 3 - i % 2, got.gradients[i], wanted.gradients[i]);
  for (size_t part = 0; part < 4; ++part) error[part] = std::sqrt(error[part] / size[part]);
  return error;
}

// What the errors of one block may be, and what they must be for weights, x and the output, since
// numbers of so few digits cannot do better: else the products were made with others.
struct Limits {
  Precision precision;
  double least, most;
};
constexpr Limits below_fp32[] = {
    {Precision::tf32x3, 1e-8, 5e-6}, {Precision::tf32, 5e-5, 1e-3}, {Precision::bf16, 4e-4, 1e-2}};

}  // namespace

TEST_CASE("device: fused blocks are the blocks") {
  struct Case {
    int blocks, B, T;
    Pattern pattern;
    Activation activation;
    double dropout;
  };
  for (const Case& c : {Case{1, 1, 1, Pattern::full, Activation::gelu, 0.0},
                        {1, 3, 21, Pattern::banded, Activation::gelu, 0.3},
                        {1, 2, 32, Pattern::banded, Activation::mish, 0.0},
                        {2, 1, 67, Pattern::full, Activation::gelu, 0.3},
                        {3, 1, 130, Pattern::block, Activation::mish, 0.01}}) {
    ModelSettings s;
    s.attention = {c.pattern, std::min(3, c.T), 0, 1, c.dropout};
    s.activation = c.activation, s.dropout = c.dropout, s.blocks = c.blocks;
    same_on_device(
        str(c.blocks, " blocks of ", c.T, " tokens, ", name_of(c.pattern), ", dropout ", c.dropout),
        block_shapes(c.B, c.T, c.blocks),
        [&](auto& tape, const auto& in) { return through_blocks(tape, in, s); }, 400,
        {true, 0xb10cull, 3, 1});
  }
}

TEST_CASE("device: fused blocks on tensor cores, against double") {
  struct Case {
    int blocks, T;
    Activation activation;
    double dropout;
  };
  std::vector<Case> cases{Case{1, 1, Activation::gelu, 0.3}, {1, 63, Activation::mish, 0.3},
                          {2, 65, Activation::gelu, 0},      {1, 130, Activation::mish, 0},
                          {3, 20, Activation::gelu, 0.01},   {1, 17, Activation::relu, 0.3}};
  // Larger blocks: under emulation, whose device is small, 130 rows are enough for them.
  if (!gpu::emulated()) cases.push_back({1, 9000, Activation::gelu, 0.3});
  for (const Case& c : cases) {
    ModelSettings s;
    s.attention = {Pattern::banded, std::min(3, c.T), 0, 1, 0};
    s.activation = c.activation, s.dropout = c.dropout, s.blocks = c.blocks;
    const auto shapes = block_shapes(1, c.T, c.blocks);
    const auto blocks = [&](auto& tape, const auto& in) { return through_blocks(tape, in, s); };
    const Noise noise{true, 0xb10cull, 3, 1};
    const OperationResult wanted = run_operation<double>(nullptr, shapes, blocks, noise);
    for (const Limits& limits : below_fp32) {
      gpu::CudaOps device;
      device.set_runs({noise.seed}, 0);
      device.set_precision(limits.precision);
      gpu::shuffle_threads(uint64_t(c.T));
      const auto errors = errors_of(run_operation<float>(&device, shapes, blocks, noise), wanted);
      // A slope of ReLU is decided by rounding where its argument is almost 0.
      const double most = limits.most * c.blocks * (c.activation == Activation::relu ? 30 : 1);
      INFO(str(name_of(limits.precision), ", ", c.blocks, " blocks of ", c.T, " tokens: output ",
               errors[0], ", x ", errors[1], ", weights ", errors[2], ", biases ", errors[3]));
      for (size_t part = 0; part < 4; ++part) CHECK(errors[part] <= most);
      for (size_t part = 0; part < 3; ++part) CHECK(errors[part] >= limits.least);
    }
  }
  gpu::shuffle_threads(0);
}

TEST_CASE("device: runs of fused blocks have the bits of each alone") {
  ModelSettings s;
  s.attention = {Pattern::topk, 5, 0, 1, 0.2};
  s.dropout = 0.2, s.vocabulary = 9, s.classes = 4, s.length = 70, s.blocks = 2;
  const int batch = 2;
  Rng rng(3, Stream::analysis);
  std::vector<int> tokens, labels;
  for (int i = 0; i < 2 * batch * s.length; ++i) tokens.push_back(int(rng.below(9)));
  for (int i = 0; i < 2 * batch; ++i) labels.push_back(int(rng.below(4)));
  // Losses and gradients of the runs with these seeds, which train on batch number seed − 1.
  const auto pass = [&](const std::vector<uint64_t>& seeds, Precision precision) {
    gpu::CudaOps device;
    device.set_precision(precision);
    CHECK(device.fuses_blocks(s));
    PlacedModel model(device, s, seeds);
    Model<float> host(s);
    std::vector<int> own_tokens, own_labels;
    for (size_t r = 0; r < seeds.size(); ++r) {
      host.initialise(seeds[r]);
      model.upload(int(r), host);
      const auto take = [&](std::vector<int>& to, const std::vector<int>& from, int each) {
        const auto first = from.begin() + ptrdiff_t(seeds[r] - 1) * batch * each;
        to.insert(to.end(), first, first + batch * each);
      };
      take(own_tokens, tokens, s.length), take(own_labels, labels, 1);
    }
    const gpu::DeviceArray<int> d_tokens(own_tokens), d_labels(own_labels);
    Workers workers;
    Tape<float> tape(workers, &device);
    tape.reset(true, Noise{true, 0, 5, 0});
    const int rows = batch * int(seeds.size());
    const Tensor<float> loss =
        cross_entropy(tape, model.model().forward(tape, d_tokens.data(), rows), d_labels.data());
    tape.backward(loss);
    std::vector<std::vector<float>> all(seeds.size());
    for (size_t r = 0; r < seeds.size(); ++r) {
      model.download_gradients(int(r), host);
      for (const Parameter<float>& p : host.parameters())
        all[r].insert(all[r].end(), p.gradient_value.begin(), p.gradient_value.end());
    }
    std::vector<float> losses(seeds.size());
    device.download(losses.data(), loss.data, losses.size() * sizeof(float));
    for (size_t r = 0; r < seeds.size(); ++r) all[r].push_back(losses[r]);
    return all;
  };
  std::vector<std::vector<float>> seen;
  for (const Precision precision : {Precision::fp32, Precision::tf32x3, Precision::bf16}) {
    const auto together = pass({1, 2}, precision);
    for (size_t r = 0; r < 2; ++r) {
      const auto alone = pass({r + 1}, precision);
      CHECK(std::memcmp(alone[0].data(), together[r].data(), alone[0].size() * sizeof(float)) == 0);
    }
    for (const auto& other : seen) CHECK(together[0] != other);
    seen.push_back(together[0]);
  }
}

}  // namespace focus::test
