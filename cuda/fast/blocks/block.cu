// A transformer block on the tape from the fused kernels of block_forward.cu and block_backward.cu.
#include "cuda/fast/blocks/block.cuh"
#include "model/model.h"
#include "ops/dropout.h"

namespace focus::gpu {

namespace {

using Layers = std::array<Layer<float>, 3>;

FusedLayer fused(const Layer<float>& layer) {
  return {layer.weight.data, layer.bias.data};
}

NormedProjections projections_of(Tape<float>& tape, const CudaOps& device, const Tensor<float>& x,
                                 double epsilon, const Layers& layers,
                                 std::array<Tensor<float>, 3>& y) {
  NormedProjections a{};
  a.precision = device.precision();
  a.M = x.rows() / device.runs(), a.stride = device.stride();
  a.x = x.data, a.epsilon = float(epsilon);
  a.stats = tape.memory<float2>(size_t(x.rows()));
  for (size_t l = 0; l < 3; ++l) {
    y[l] = tape.make(x.shape);
    a.layers[l] = fused(layers[l]), a.y[l] = y[l].data;
  }
  return a;
}

SecondHalf second_half_of(Tape<float>& tape, CudaOps& device, const Tensor<float>& x,
                          const Tensor<float>& attended, const Layers& layers,
                          const ModelSettings& settings, const Tensor<float>& y) {
  const size_t rows = size_t(x.rows());
  SecondHalf a{};
  a.precision = device.precision();
  a.M = x.rows() / device.runs(), a.stride = device.stride();
  a.x = x.data, a.attended = attended.data, a.y = y.data, a.scale = 1;
  a.epsilon = float(settings.layer_norm_epsilon), a.activation = settings.activation;
  for (size_t l = 0; l < 3; ++l) a.layers[l] = fused(layers[l]);
  if (tape.recording()) {
    a.stats = tape.memory<float2>(rows);
    a.middle = tape.memory<float>(x.size()), a.hidden = tape.memory<float>(x.size());
  }
  if (dropout_active(tape, settings.dropout)) {
    for (size_t m = 0; m < 3; ++m) {
      a.draws[m] = device.draw(tape.noise(), tape.noise().next_site++, settings.dropout);
      a.scale = a.draws[m].scale;
      a.kept[m] = tape.memory<unsigned char>(rows * 8);
    }
    draw_kept(a, device.runs(), device.ahead(CudaOps::Side::backward));
    device.wait_for(CudaOps::Side::backward);
  }
  return a;
}

// The gradients that a backward reads and writes.
void set_gradients(Tape<float>& tape, SecondHalf& a, const Tensor<float>& x,
                   const Tensor<float>& attended, const Tensor<float>& y) {
  a.dy = tape.gradient(y);
  const auto d_attended = tape.gradient_target(attended), dx = tape.gradient_target(x);
  a.d_attended = d_attended.data, a.add_attended = !d_attended.fresh;
  a.dx = dx.data, a.add_dx = !dx.fresh;
}

// Starts the sum of the parts of these layers' gradients, in the parts' order.
void sum_layers(Tape<float>& tape, CudaOps& device, const float* parts, int M,
                std::initializer_list<const Layers*> all) {
  LayerGradients to{};
  for (const Layers* layers : all)
    for (const Layer<float>& layer : *layers) {
      to.weight[to.layers] = tape.gradient(layer.weight);
      to.bias[to.layers++] = tape.gradient(layer.bias);
    }
  sum_parts(to, device.precision(), parts, M, device.stride(), device.runs(),
            device.beside(CudaOps::Side::backward));
}

}  // namespace

bool CudaOps::fuses_blocks(const ModelSettings& s) const {
  // Parameters are read 16 bytes at a time.
  return fuse_blocks_ && s.d_model == 64 && s.d_mlp == 64 && s.attention.heads == 1 &&
         stride() % 4 == 0 && block_shared_bytes() <= device().shared_memory;
}

std::array<Tensor<float>, 3> CudaOps::normed_projections(Tape<float>& tape, const Tensor<float>& x,
                                                         double epsilon, const Layers& layers) {
  std::array<Tensor<float>, 3> y;
  NormedProjections a = projections_of(tape, *this, x, epsilon, layers, y);
  normed_projections_forward(a, runs(), stream());

  // The backward runs when the tape comes to q; k's and v's gradients are given back after it.
  for (size_t l : {2u, 1u}) tape.record(y[l], [] {});
  tape.record(y[0], [=, this, &tape]() mutable {
    for (size_t l = 0; l < 3; ++l) a.dy[l] = tape.gradient(y[l]);
    const auto dx = tape.gradient_target(x);
    a.dx = dx.data, a.add_dx = !dx.fresh;
    a.parts = parts(part_floats_of(a.M, 3, runs()));
    normed_projections_backward(a, runs(), stream());
    sum_layers(tape, *this, a.parts, a.M, {&layers});
  });
  return y;
}

Tensor<float> CudaOps::second_half(Tape<float>& tape, const Tensor<float>& x,
                                   const Tensor<float>& attended, const Layers& layers,
                                   const ModelSettings& settings) {
  const Tensor<float> y = tape.make(x.shape);
  SecondHalf a = second_half_of(tape, *this, x, attended, layers, settings, y);
  second_half_forward(a, nullptr, runs(), stream());

  tape.record(y, [=, this, &tape]() mutable {
    set_gradients(tape, a, x, attended, y);
    a.parts = parts(part_floats_of(a.M, 3, runs()));
    second_half_backward(a, nullptr, runs(), stream());
    sum_layers(tape, *this, a.parts, a.M, {&layers});
  });
  return y;
}

std::array<Tensor<float>, 4> CudaOps::second_half_and_projections(
    Tape<float>& tape, const Tensor<float>& x, const Tensor<float>& attended, const Layers& layers,
    const Layers& next_layers, const ModelSettings& settings) {
  const Tensor<float> y = tape.make(x.shape);
  std::array<Tensor<float>, 3> projected;
  SecondHalf a = second_half_of(tape, *this, x, attended, layers, settings, y);
  NormedProjections next =
      projections_of(tape, *this, y, settings.layer_norm_epsilon, next_layers, projected);
  second_half_forward(a, &next, runs(), stream());

  // As above: the backward runs when the tape comes to q.
  tape.record(y, [] {});
  for (size_t l : {2u, 1u}) tape.record(projected[l], [] {});
  tape.record(projected[0], [=, this, &tape]() mutable {
    for (size_t l = 0; l < 3; ++l) next.dy[l] = tape.gradient(projected[l]);
    set_gradients(tape, a, x, attended, y);
    a.parts = parts(part_floats_of(a.M, 6, runs()));
    second_half_backward(a, &next, runs(), stream());
    sum_layers(tape, *this, a.parts, a.M, {&next_layers, &layers});
  });
  return {y, projected[0], projected[1], projected[2]};
}

}  // namespace focus::gpu
