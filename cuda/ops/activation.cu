// ReLU, GELU and Mish: a thread for four numbers, which all start at multiples of 16 bytes. See
// src/ops/activation.cpp for the formulas.
#include "cuda/device/launch.h"
#include "cuda/ops/activation.cuh"
#include "cuda/ops/ops.h"

namespace focus::gpu {

namespace {

__global__ void activate_forward(Activation a, const float* x, float* y, size_t n) {
  wait_for_previous();
  const size_t i = 4 * (size_t(blockIdx.x) * blockDim.x + threadIdx.x);
  if (i + 4 <= n) {
    const float4 v = load4(x + i);
    store4(y + i, make_float4(activation_value(a, v.x), activation_value(a, v.y),
                              activation_value(a, v.z), activation_value(a, v.w)));
  } else {
    for (size_t e = i; e < n; ++e) y[e] = activation_value(a, x[e]);
  }
}

__global__ void activate_backward(Activation a, const float* x, const float* dy, float* dx,
                                  size_t n) {
  wait_for_previous();
  const size_t i = 4 * (size_t(blockIdx.x) * blockDim.x + threadIdx.x);
  if (i + 4 <= n) {
    const float4 v = load4(x + i), d = load4(dy + i);
    store4(dx + i, make_float4(d.x * activation_slope(a, v.x), d.y * activation_slope(a, v.y),
                               d.z * activation_slope(a, v.z), d.w * activation_slope(a, v.w)));
  } else {
    for (size_t e = i; e < n; ++e) dx[e] = dy[e] * activation_slope(a, x[e]);
  }
}

}  // namespace

void activation_forward(Activation a, size_t n, const float* x, float* y, void* stream) {
  launch(early({"activate_forward", (n + 1023) / 1024, 256}), stream, activate_forward, a, x, y, n);
}

void activation_backward(Activation a, size_t n, const float* x, const float* dy, float* dx,
                         void* stream) {
  launch(early({"activate_backward", (n + 1023) / 1024, 256}), stream, activate_backward, a, x, dy,
         dx, n);
}

}  // namespace focus::gpu
