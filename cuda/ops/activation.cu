// ReLU, GELU and Mish: a thread for each number. See src/ops/activation.cpp for the formulas.
#include "cuda/device/launch.h"
#include "cuda/ops/activation.cuh"
#include "cuda/ops/ops.h"

namespace focus::gpu {

namespace {

__global__ void activate_forward(Activation a, const float* x, float* y, size_t n) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) y[i] = activation_value(a, x[i]);
}

__global__ void activate_backward(Activation a, const float* x, const float* dy, float* dx,
                                  bool add, size_t n) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float d = dy[i] * activation_slope(a, x[i]);
  dx[i] = add ? dx[i] + d : d;
}

}  // namespace

Tensor<float> CudaOps::activate(Tape<float>& tape, const Tensor<float>& x, Activation a) {
  const Tensor<float> y = tape.make(x.shape);
  const size_t n = x.size(), blocks = (n + 255) / 256;
  launch({"activate_forward", blocks, 256}, stream(), activate_forward, a, x.data, y.data, n);
  tape.record(y, [=, this, &tape] {
    const auto dx = tape.gradient_target(x);
    const float* dy = tape.gradient(y);
    if (!dx.data) return;
    launch({"activate_backward", blocks, 256}, stream(), activate_backward, a, x.data, dy, dx.data,
           !dx.fresh, n);
  });
  return y;
}

}  // namespace focus::gpu
