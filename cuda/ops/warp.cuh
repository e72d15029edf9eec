// Sums over the lanes of a warp; every lane gets the result.
#pragma once

#include "cuda/simt/simt.h"

namespace focus::gpu {

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(all_lanes, value, lanes);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2)
    value = fmaxf(value, __shfl_xor_sync(all_lanes, value, lanes));
  return value;
}

}  // namespace focus::gpu
