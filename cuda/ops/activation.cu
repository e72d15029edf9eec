// ReLU, GELU and Mish: a thread for each number. See src/ops/activation.cpp for the formulas.
#include "cuda/device/launch.h"
#include "cuda/ops/activation.cuh"
#include "cuda/ops/ops.h"

namespace focus::gpu {

namespace {

__global__ void activate_forward(Activation a, const float* x, float* y, size_t n) {
  wait_for_previous();
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) y[i] = activation_value(a, x[i]);
}

__global__ void activate_backward(Activation a, const float* x, const float* dy, float* dx,
                                  size_t n) {
  wait_for_previous();
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) dx[i] = dy[i] * activation_slope(a, x[i]);
}

}  // namespace

void activation_forward(Activation a, size_t n, const float* x, float* y, void* stream) {
  launch(early({"activate_forward", (n + 255) / 256, 256}), stream, activate_forward, a, x, y, n);
}

void activation_backward(Activation a, size_t n, const float* x, const float* dy, float* dx,
                         void* stream) {
  launch(early({"activate_backward", (n + 255) / 256, 256}), stream, activate_backward, a, x, dy,
         dx, n);
}

}  // namespace focus::gpu
