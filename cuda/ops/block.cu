// A transformer block on the tape from the fused kernels of block_forward.cu and block_backward.cu.
#include "cuda/ops/block.cuh"
#include "model/model.h"
#include "ops/dropout.h"

namespace focus::gpu {

namespace {

FusedLayer fused(const Layer<float>& layer) {
  return {layer.weight.data, layer.bias.data};
}

LayerGradients gradients_of(Tape<float>& tape, const std::array<Layer<float>, 3>& layers) {
  LayerGradients all{};
  for (size_t l = 0; l < 3; ++l) {
    all.weight[l] = tape.gradient(layers[l].weight);
    all.bias[l] = tape.gradient(layers[l].bias);
  }
  return all;
}

// The layers' gradients from each tile of 64 rows.
float* make_parts(Tape<float>& tape, int M, int runs) {
  return tape.memory<float>(size_t((M + 63) / 64 * runs) * 3 * (64 * 64 + 64));
}

}  // namespace

bool CudaOps::fuses_blocks(const ModelSettings& s) const {
  // Parameters are read 16 bytes at a time.
  return fuse_blocks_ && s.d_model == 64 && s.d_mlp == 64 && s.attention.heads == 1 &&
         stride() % 4 == 0;
}

std::array<Tensor<float>, 3> CudaOps::normed_projections(
    Tape<float>& tape, const Tensor<float>& x, double epsilon,
    const std::array<Layer<float>, 3>& layers) {
  const size_t rows = size_t(x.rows());
  NormedProjections a{};
  a.M = int(rows) / runs(), a.stride = stride(), a.x = x.data, a.epsilon = float(epsilon);
  a.stats = tape.memory<float2>(rows);
  std::array<Tensor<float>, 3> y;
  for (size_t l = 0; l < 3; ++l) {
    y[l] = tape.make(x.shape);
    a.layers[l] = fused(layers[l]), a.y[l] = y[l].data;
  }
  normed_projections_forward(a, runs(), stream());

  // The backward runs when the tape comes to q; k's and v's gradients are given back after it.
  for (size_t l : {2u, 1u}) tape.record(y[l], [] {});
  tape.record(y[0], [=, this, &tape]() mutable {
    for (size_t l = 0; l < 3; ++l) a.dy[l] = tape.gradient(y[l]);
    const auto dx = tape.gradient_target(x);
    a.dx = dx.data, a.add_dx = !dx.fresh;
    a.parts = make_parts(tape, a.M, runs());
    normed_projections_backward(a, runs(), stream());
    sum_parts(gradients_of(tape, layers), a.parts, a.M, a.stride, runs(), beside(Side::backward));
  });
  return y;
}

Tensor<float> CudaOps::second_half(Tape<float>& tape, const Tensor<float>& x,
                                   const Tensor<float>& attended,
                                   const std::array<Layer<float>, 3>& layers,
                                   const ModelSettings& settings) {
  const size_t rows = size_t(x.rows());
  const Tensor<float> y = tape.make(x.shape);
  SecondHalf a{};
  a.M = int(rows) / runs(), a.stride = stride(), a.x = x.data, a.attended = attended.data;
  a.epsilon = float(settings.layer_norm_epsilon), a.activation = settings.activation;
  a.y = y.data, a.scale = 1;
  for (size_t l = 0; l < 3; ++l) a.layers[l] = fused(layers[l]);
  if (tape.recording()) {
    a.stats = tape.memory<float2>(rows);
    a.middle = tape.memory<float>(x.size()), a.hidden = tape.memory<float>(x.size());
  }
  if (dropout_active(tape, settings.dropout))
    for (size_t m = 0; m < 3; ++m) {
      a.draws[m] = draw(tape.noise(), tape.noise().next_site++, settings.dropout);
      a.scale = a.draws[m].scale;
      a.kept[m] = tape.memory<unsigned char>(rows * 8);
    }
  second_half_forward(a, runs(), stream());

  tape.record(y, [=, this, &tape]() mutable {
    a.dy = tape.gradient(y);
    const auto d_attended = tape.gradient_target(attended), dx = tape.gradient_target(x);
    a.d_attended = d_attended.data, a.add_attended = !d_attended.fresh;
    a.dx = dx.data, a.add_dx = !dx.fresh;
    a.parts = make_parts(tape, a.M, runs());
    second_half_backward(a, runs(), stream());
    sum_parts(gradients_of(tape, layers), a.parts, a.M, a.stride, runs(), beside(Side::backward));
  });
  return y;
}

}  // namespace focus::gpu
