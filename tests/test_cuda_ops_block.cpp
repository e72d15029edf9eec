// The transformer's blocks by kernels against the CPU's operations in double, in both forms; and
// several runs together against each alone, to the bit.
#include <cstring>

#include "attention/attention.h"
#include "cuda/fast/blocks/block.cuh"
#include "cuda/lesson/random_run.h"
#include "cuda/stepper/graph_stepper.h"
#include "cuda_ops_run.h"
#include "ops/dropout.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"

namespace focus::test {

namespace {

constexpr double first_epsilon = 1e-3;

// x, then for each block weight and bias of q, k, v, W_o and the MLP's two layers.
std::vector<Shape> block_shapes(const ModelSettings& s, int B) {
  const int C = s.d_model, HC = s.attention.heads * C, F = s.d_mlp;
  std::vector<Shape> shapes{{B, s.length, C}};
  for (int block = 0; block < s.blocks; ++block)
    for (const auto& [in, out] : {std::pair(C, HC), {C, HC}, {C, HC}, {HC, C}, {C, F}, {F, C}}) {
      shapes.push_back({out, in});
      shapes.push_back({out});
    }
  return shapes;
}

// All blocks, operation by operation on the CPU.
Tensor<double> through_blocks(Tape<double>& tape, const std::vector<Tensor<double>>& in,
                              const ModelSettings& s) {
  const auto apply = [&](size_t l, const Tensor<double>& a) {
    return linear(tape, a, in[1 + 2 * l], in[2 + 2 * l]);
  };
  Tensor<double> x = in[0];
  for (size_t l = 0; l < 6 * size_t(s.blocks); l += 6) {
    const Tensor<double> n =
        layer_norm(tape, x, l == 0 ? s.first_layer_norm_epsilon : s.layer_norm_epsilon);
    const Tensor<double> attended =
        attention(tape, apply(l, n), apply(l + 1, n), apply(l + 2, n), s.attention);
    const Tensor<double> middle = add_dropout(tape, x, apply(l + 3, attended), s.dropout);
    const Tensor<double> hidden =
        dropout(tape, apply(l + 4, layer_norm(tape, middle, s.layer_norm_epsilon)), s.dropout);
    x = add_dropout(tape, middle, apply(l + 5, activate(tape, hidden, s.activation)), s.dropout);
  }
  return x;
}

ModelSettings blocks_of(const AttentionSettings& attention, int T, int blocks, Activation a,
                        double dropout) {
  ModelSettings s;
  s.attention = attention, s.length = T, s.blocks = blocks;
  s.activation = a, s.dropout = dropout, s.first_layer_norm_epsilon = first_epsilon;
  s.vocabulary = s.classes = 1;
  return s;
}

// The same by kernels; without training the output alone.
OperationResult blocks_on_device(const OperationInputs& in, const ModelSettings& s, int B,
                                 Precision precision, bool fused, const Noise& noise,
                                 bool training = true) {
  using namespace gpu;
  const Shape shape{B, s.length, s.d_model};
  OnDevice device(in, shape);
  const DeviceLists lists(s.attention, s.length);
  const DeviceArray<uint64_t> seeds(std::vector<uint64_t>{noise.seed});
  const DeviceArray<Counters> counters(std::vector<Counters>{{0, noise.step, 0}});
  ModelOnDevice model{.settings = s,
                      .runs = {},
                      .precision = precision,
                      .fused = fused,
                      .seeds = seeds.data(),
                      .counters = counters.data(),
                      .lists = &lists,
                      .at = ParameterPlaces(s)};
  // All layers in one piece, as a run has them.
  const size_t first = model.at.blocks[0].q.weight;
  std::vector<float> weights(first, NAN), gradients(first, NAN);
  for (size_t i = 1; i < in.shapes.size(); ++i) {
    weights.insert(weights.end(), in.values[i].begin(), in.values[i].end());
    gradients.insert(gradients.end(), in.before[i].begin(), in.before[i].end());
  }
  const DeviceArray<float> d_weights(weights), d_gradients(gradients);
  model.weights = d_weights.data(), model.gradients = d_gradients.data();
  model.runs.stride = weights.size();

  DeviceArray<char> memory;
  Streams streams;
  std::unique_ptr<Blocks> blocks;
  Scratch scratch;
  for (const bool measured : {false, true}) {
    Layout layout = measured ? Layout(memory.data()) : Layout();
    uint32_t site = noise.next_site;
    blocks = (fused ? fused_blocks : plain_blocks)(model, B, training, site, scratch, layout);
    scratch.memory = layout.take<char>(scratch.bytes);
    if (!measured) memory = DeviceArray<char>(layout.used());
    memory.poison();
  }
  if (training) streams.fork();
  const float* y = blocks->forward(device.x[0].data(), streams, {});
  streams.copy(device.y.data(), y, shape.size() * sizeof(float));
  if (!training) {
    streams.wait();
    return device.result(shape);
  }
  const float* dx = blocks->backward(device.dy.data(), streams);
  streams.join();
  streams.copy(device.dx[0].data(), dx, shape.size() * sizeof(float));
  streams.wait();
  OperationResult result = device.result(shape);
  const std::vector<float> all = d_gradients.host();
  size_t at = first;
  for (size_t i = 1; i < in.shapes.size(); ++i) {
    const size_t n = in.shapes[i].size();
    result.gradients[i].assign(all.begin() + ptrdiff_t(at), all.begin() + ptrdiff_t(at + n));
    at += n;
  }
  return result;
}

// What the blocks make of x in evaluation.
std::vector<double> output_on_device(const OperationInputs& in, const ModelSettings& s,
                                     Precision precision) {
  return blocks_on_device(in, s, in.shapes[0][0], precision, true, {}, false).output;
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

double relative_error(const std::vector<double>& got, const std::vector<double>& wanted) {
  REQUIRE(got.size() == wanted.size());
  double error = 0, size = 0;
  for (size_t i = 0; i < wanted.size(); ++i)
    error += std::pow(got[i] - wanted[i], 2), size += std::pow(wanted[i], 2);
  return std::sqrt(error / size);
}

// What the errors of one block may be, and what they must be for weights, x and the output, since
// numbers of so few digits cannot do better: else the products were made with others.
struct Limits {
  Precision precision;
  double least, most;
};
constexpr Limits below_fp32[] = {
    {Precision::tf32x3, 1e-8, 5e-6}, {Precision::tf32, 5e-5, 1e-3}, {Precision::bf16, 4e-4, 1e-2}};

OperationInputs block_inputs(const ModelSettings& s, int B) {
  const std::vector<Shape> shapes = block_shapes(s, B);
  return {shapes, "s" + std::string(shapes.size() - 1, 'a')};
}

}  // namespace

TEST_CASE("device: a block's kernels are the block, fused and operation by operation") {
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
                        {3, 1, 130, Pattern::block, Activation::mish, 0.01}})
    for (const bool fused : {true, false}) {
      ModelSettings s = blocks_of({c.pattern, std::min(3, c.T), 0, 1, c.dropout}, c.T, c.blocks,
                                  c.activation, c.dropout);
      // What is not fused may have any shape.
      if (!fused) s.d_model = 20, s.d_mlp = 13, s.attention.heads = 2;
      const OperationInputs in = block_inputs(s, c.B);
      const Noise noise{true, 0xb10cull, 3, 1};
      const OperationResult wanted = on_tape(
          in, [&](auto& tape, const auto& x) { return through_blocks(tape, x, s); }, noise);
      gpu::shuffle_threads(uint64_t(c.T));
      check_close(str(fused ? "fused, " : "", c.blocks, " blocks of ", c.T, " tokens, ",
                      name_of(c.pattern), ", dropout ", c.dropout),
                  in, blocks_on_device(in, s, c.B, Precision::fp32, fused, noise), wanted, 400);
    }
  gpu::shuffle_threads(0);
}

TEST_CASE("device: fused blocks on tensor cores, against double") {
  struct Case {
    int blocks, T;
    Activation activation;
    double dropout;
  };
  std::vector<Case> cases{Case{1, 1, Activation::gelu, 0.3}, {1, 63, Activation::mish, 0.3},
                          {2, 65, Activation::gelu, 0},      {1, 130, Activation::mish, 0},
                          {3, 20, Activation::gelu, 0.01},   {1, 17, Activation::relu, 0.3},
                          {1, 400, Activation::relu, 0}};
  // Larger blocks: under emulation, whose device is small, 130 rows are enough for them.
  if (!gpu::emulated()) cases.push_back({1, 9000, Activation::gelu, 0.3});
  for (const Case& c : cases) {
    const ModelSettings s = blocks_of({Pattern::banded, std::min(3, c.T), 0, 1, 0}, c.T, c.blocks,
                                      c.activation, c.dropout);
    const OperationInputs in = block_inputs(s, 1);
    const Noise noise{true, 0xb10cull, 3, 1};
    const OperationResult wanted = on_tape(
        in, [&](auto& tape, const auto& x) { return through_blocks(tape, x, s); }, noise);
    for (const Limits& limits : below_fp32) {
      gpu::shuffle_threads(uint64_t(c.T));
      const auto errors =
          errors_of(blocks_on_device(in, s, 1, limits.precision, true, noise), wanted);
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

TEST_CASE("device: all blocks of short sequences in one kernel, against double") {
  struct Case {
    int blocks, B, T;
    Pattern pattern;
    int k;
    Activation activation;
  };
  for (const Case& c : {Case{1, 1, 1, Pattern::full, 0, Activation::relu},
                        {2, 5, 40, Pattern::full, 0, Activation::gelu},
                        {1, 3, 48, Pattern::full, 0, Activation::mish},
                        {2, 6, 40, Pattern::topk, 5, Activation::relu},
                        {1, 4, 17, Pattern::bottomk, 3, Activation::relu},
                        {1, 1, 48, Pattern::topk, 47, Activation::relu},
                        {1, 2, 33, Pattern::topk, 1, Activation::relu}}) {
    ModelSettings s = blocks_of({c.pattern, c.k, 0, 1, 0}, c.T, c.blocks, c.activation, 0);
    s.attention.score_scale = 1.5;
    const OperationInputs in = block_inputs(s, c.B);
    const OperationResult wanted =
        on_tape(in, [&](auto& tape, const auto& x) { return through_blocks(tape, x, s); }, {});
    for (const Limits& limits : below_fp32) {
      // On a GPU with less shared memory other kernels are tested.
      REQUIRE((gpu::fits_short_sequences(limits.precision, c.pattern, false, c.T) ||
               gpu::device().shared_memory < size_t(200) * 1024));
      gpu::shuffle_threads(uint64_t(c.T));
      const double error = relative_error(output_on_device(in, s, limits.precision), wanted.output);
      INFO(str(name_of(limits.precision), ", ", c.blocks, " blocks of ", c.T, " tokens, ",
               name_of(c.pattern), ": ", error));
      // Queries and keys of few digits may choose another key where two scores are near.
      const bool may_choose_others = c.k > 0 && limits.precision != Precision::tf32x3;
      CHECK(error <= (may_choose_others ? 0.1 : limits.most * c.blocks));
      CHECK(error >= limits.least);
    }
  }
  gpu::shuffle_threads(0);
}

// Keys without a weight are equal, so all scores of a query are, and the first keys are chosen; a
// NaN stays in its sequence.
TEST_CASE("device: short sequences with equal scores, and with a NaN") {
  const int T = 21, B = 3;
  const ModelSettings s = blocks_of({Pattern::topk, 4, 0, 1, 0}, T, 1, Activation::relu, 0);
  OperationInputs in = block_inputs(s, B);
  std::fill(in.values[3].begin(), in.values[3].end(), 0);  // W_k
  const OperationResult wanted =
      on_tape(in, [&](auto& tape, const auto& x) { return through_blocks(tape, x, s); }, {});
  for (const Limits& limits : below_fp32) {
    const std::vector<double> got = output_on_device(in, s, limits.precision);
    CHECK(relative_error(got, wanted.output) <= limits.most);
    OperationInputs with_nan = in;
    const size_t sequence = size_t(T * s.d_model);
    with_nan.values[0][sequence + 77] = NAN;
    const std::vector<double> seen = output_on_device(with_nan, s, limits.precision);
    for (size_t i = 0; i < seen.size(); ++i)
      if (i / sequence == 1)
        REQUIRE(std::isnan(seen[i]));
      else
        REQUIRE(seen[i] == got[i]);
  }
}

TEST_CASE("device: runs of fused blocks have the bits of each alone") {
  StepSettings settings{.batch = 2};
  ModelSettings& s = settings.model;
  s.attention = {Pattern::topk, 5, 0, 1, 0.2};
  s.dropout = 0.2, s.vocabulary = 9, s.classes = 4, s.length = 70, s.blocks = 2;
  REQUIRE(gpu::fits_fused_blocks(s));
  // Losses and gradients of the runs with these seeds.
  const auto pass = [&](const std::vector<uint64_t>& seeds, Precision precision) {
    settings.precision = precision;
    std::deque<gpu::RandomRun> runs;
    std::vector<StepRun> step_runs;
    std::vector<Epoch> epochs;
    for (const uint64_t seed : seeds) {
      const gpu::RandomRun& run = runs.emplace_back(settings, 2, seed);
      step_runs.push_back(run.step_run), epochs.push_back(run.epoch);
    }
    gpu::GraphStepper stepper(settings, step_runs, true, true);
    for (size_t r = 0; r < runs.size(); ++r) stepper.load(int(r), runs[r].model, runs[r].optimizer);
    std::vector<std::vector<float>> all;
    for (const Gradients& g : stepper.gradients(epochs, 0)) {
      std::vector<float>& of_run = all.emplace_back(g.logits);
      for (const auto& p : g.parameters) of_run.insert(of_run.end(), p.begin(), p.end());
      of_run.push_back(g.loss);
    }
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
