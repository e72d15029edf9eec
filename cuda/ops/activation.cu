// ReLU, GELU and Mish: a thread for each number. See src/ops/activation.cpp for the formulas.
#include "cuda/device/launch.h"
#include "cuda/ops/ops.h"

namespace focus::gpu {

namespace {

__device__ float below(float x) {  // Φ(x)
  return 0.5f * (1.f + erff(x * 0.70710678118654752f));
}
__device__ float mish_gate(float x) {
  if (x > 20.f) return 1.f;
  const float e = expf(x), n = e * (e + 2.f);
  return n / (n + 2.f);
}

__device__ float value(Activation a, float x) {
  if (a == Activation::gelu) return x * below(x);
  if (a == Activation::mish) return x * mish_gate(x);
  return x > 0.f || x != x ? x : 0.f;
}
__device__ float slope(Activation a, float x) {
  if (a == Activation::gelu) return below(x) + x * 0.39894228040143268f * expf(-0.5f * x * x);
  if (a == Activation::mish) {
    const float g = mish_gate(x);
    return g + x * (1.f - g * g) / (1.f + expf(-x));
  }
  return x > 0.f ? 1.f : 0.f;
}

__global__ void activate_forward(Activation a, const float* x, float* y, size_t n) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) y[i] = value(a, x[i]);
}

__global__ void activate_backward(Activation a, const float* x, const float* dy, float* dx,
                                  bool add, size_t n) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float d = dy[i] * slope(a, x[i]);
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
