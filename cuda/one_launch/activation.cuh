// The activations of src/ops/activation.cpp, value and slope at once.
#pragma once

#include "cuda/simt/simt.h"
#include "ops/activation.h"

namespace focus::gpu::one_launch {

struct Activated {
  float value, slope;
};

__device__ inline Activated activate(Activation which, float x) {
  switch (which) {
    case Activation::gelu: {
      const float below = 0.5f * (1 + erff(x * 0.70710678f));
      return {x * below, below + x * 0.39894228f * expf(-0.5f * x * x)};
    }
    case Activation::mish: {
      float gate = 1;
      if (!(x > 20)) {
        const float e = expf(x), n = e * (e + 2);
        gate = n / (n + 2);
      }
      return {x * gate, gate + x * (1 - gate * gate) / (1 + expf(-x))};
    }
    case Activation::relu:
      break;
  }
  return {x > 0 || x != x ? x : 0.f, x > 0 ? 1.f : 0.f};
}

}  // namespace focus::gpu::one_launch
