// Every operation on the device against the CPU's in double.
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

// A vector of ids where the tape's tensors are, for as long as the test lasts.
struct Ids {
  std::vector<int> host;
  gpu::DeviceArray<int> device;
  Ids(size_t n, int below) {
    Rng rng(7, Stream::analysis, uint32_t(n));
    for (size_t i = 0; i < n; ++i) host.push_back(int(rng.below(uint32_t(below))));
    device = gpu::DeviceArray<int>(host);
  }
  template <class T>
  const int* at(Tape<T>& tape) const {
    return tape.device() ? device.data() : host.data();
  }
};

}  // namespace

TEST_CASE("device: linear") {
  const auto operation = [](auto& tape, const auto& x) { return linear(tape, x[0], x[1], x[2]); };
  struct Size {
    int B, T, in, out;
  };
  for (const Size& s : {Size{1, 1, 1, 1},
                        {3, 7, 5, 9},
                        {2, 70, 64, 64},
                        {5, 39, 20, 33},
                        {1, 3, 130, 66},
                        {4, 33, 64, 10}})
    same_on_device(str("linear ", s.in, " to ", s.out), {{s.B, s.T, s.in}, {s.out, s.in}, {s.out}},
                   operation, 20);
}

TEST_CASE("device: layer norm") {
  for (int C : {1, 5, 32, 64, 100})
    same_on_device(
        str("layer norm of ", C), {{3, 7, C}},
        [](auto& tape, const auto& x) { return layer_norm(tape, x[0], 1e-5); }, C == 1 ? 400 : 40);
}

TEST_CASE("device: activations") {
  for (Activation a : {Activation::relu, Activation::gelu, Activation::mish})
    same_on_device(
        name_of(a), {{3, 100}}, [a](auto& tape, const auto& x) { return activate(tape, x[0], a); },
        8);
}

TEST_CASE("device: dropout draws the CPU's mask, to the bit") {
  for (double p : {0.01, 0.3, 0.999}) {
    same_on_device(
        str("dropout ", p), {{3, 7, 5}},
        [p](auto& tape, const auto& x) { return dropout(tape, x[0], p); }, 4, training);
    same_on_device(
        str("residual + dropout ", p), {{4, 64, 3}, {4, 64, 3}},
        [p](auto& tape, const auto& x) { return add_dropout(tape, x[0], x[1], p); }, 4, training);
  }
  same_on_device(
      "a tensor added to itself", {{5, 9}},
      [](auto& tape, const auto& x) { return add_dropout(tape, x[0], x[0], 0.4); }, 4, training);
  same_on_device(
      "dropout in evaluation", {{5, 9}, {5, 9}},
      [](auto& tape, const auto& x) { return add_dropout(tape, x[0], x[1], 0.4); }, 4);
}

TEST_CASE("device: embedding") {
  for (int V : {1, 6, 300}) {
    const Ids tokens(7 * 41, V);
    same_on_device(
        str("embedding of ", V), {{V, 33}, {41, 33}},
        [&](auto& tape, const auto& x) {
          auto positions = x[1];
          positions.gradient = nullptr;
          return embedding(tape, tokens.at(tape), 7, x[0], positions);
        },
        60);
  }
}

TEST_CASE("device: mean over tokens") {
  for (int T : {1, 7, 40})
    same_on_device(
        str("mean of ", T), {{3, T, 35}},
        [](auto& tape, const auto& x) { return mean_tokens(tape, x[0]); }, 8);
}

TEST_CASE("device: cross-entropy") {
  for (int N : {1, 3, 40}) {
    const Ids labels(29, N);
    Workers workers;
    gpu::CudaOps device;
    const auto loss_of = [&](auto* where, auto zero) {
      using T = decltype(zero);
      Tape<T> tape(workers, where);
      Placed<T> placed(where, {{29, N}});
      tape.reset(true);
      const Tensor<T> loss = cross_entropy(tape, placed.tensors()[0], labels.at(tape));
      std::vector<T> all = placed.read(loss.data, 1);
      tape.backward(loss);
      const std::vector<T> g = placed.read(placed.inputs[0].gradient.data, size_t(29 * N));
      all.insert(all.end(), g.begin(), g.end());
      return all;
    };
    const std::vector<float> got = loss_of(static_cast<Device<float>*>(&device), 0.f);
    const std::vector<double> wanted = loss_of(static_cast<Device<double>*>(nullptr), 0.);
    const std::string far =
        difference("loss and gradient", {int(got.size())}, got.data(), wanted, 8);
    CHECK_MESSAGE(far.empty(), far);
  }
}

}  // namespace focus::test
