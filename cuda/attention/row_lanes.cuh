// Rows of W channels owned by W/4 neighbouring lanes, four channels each: how the sparse kernels
// read rows, 16 bytes a lane and whole cache lines a row.
#pragma once

#include "cuda/attention/attention.h"
#include "cuda/simt/simt.h"

namespace focus::gpu {

// A row of a head; `head` may lie some channels further. In bytes and without signs the address is
// one instruction.
__device__ __forceinline__ const float* row_of(const Heads& x, const float* head, int row) {
  return reinterpret_cast<const float*>(reinterpret_cast<const char*>(head) +
                                        size_t(unsigned(row)) * (unsigned(x.row_stride) * 4));
}
// The 4 channels from `d` on of a row; 0 beyond D.
__device__ __forceinline__ float4 channels(const Heads& x, const float* head, int row, int d) {
  return d < x.D ? load4(row_of(x, head + d, row)) : make_float4(0, 0, 0, 0);
}
__device__ __forceinline__ float dot(float4 a, float4 b) {
  return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}
__device__ __forceinline__ float4 scaled(float w, float4 x) {
  return make_float4(w * x.x, w * x.y, w * x.z, w * x.w);
}
__device__ __forceinline__ void add_scaled(float4& sum, float w, float4 x) {
  sum.x += w * x.x, sum.y += w * x.y, sum.z += w * x.z, sum.w += w * x.w;
}
__device__ __forceinline__ void set_channels(const Heads& x, int batch_head, int row, int d,
                                             float4 to) {
  if (d < x.D) store4(x.of(batch_head) + row * x.row_stride + d, to);
}
// The sum over LANES neighbouring lanes, in each of them.
template <int LANES>
__device__ __forceinline__ float sum_of_lanes(float x) {
#pragma unroll
  for (int lanes = LANES / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(all_lanes, x, lanes);
  return x;
}

}  // namespace focus::gpu
