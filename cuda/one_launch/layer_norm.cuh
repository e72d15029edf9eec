// Row by row: layer normalisation forward and backward, and copying rows. Half a warp owns a row,
// four channels a lane.
#pragma once

#include "cuda/one_launch/arguments.cuh"

namespace focus::gpu::one_launch {

// A thread's row in round n, and its first channel. All lanes go through every round, since they
// shuffle together; rows beyond the last hold nothing.
template <class H>
struct RowPosition {
  int half, channel;
  __device__ RowPosition() : half(this_thread<H>() / 16), channel(this_thread<H>() % 16 * 4) {}
  __device__ int row(int round) const { return half + 2 * warps * round; }
  template <int R>
  static constexpr int rounds = (8 * R + 2 * warps - 1) / (2 * warps);
};

// The sum over the 16 lanes of a row, in each of them.
__device__ __forceinline__ float row_sum(float x) {
#pragma unroll
  for (int lanes = 8; lanes > 0; lanes /= 2) x += __shfl_xor_sync(all_lanes, x, lanes);
  return x;
}
__device__ __forceinline__ float sum_of(float4 x) {
  return (x.x + x.y) + (x.z + x.w);
}
__device__ __forceinline__ float dot_of(float4 a, float4 b) {
  return (a.x * b.x + a.y * b.y) + (a.z * b.z + a.w * b.w);
}
__device__ __forceinline__ float4 times(float w, float4 x) {
  return make_float4(w * x.x, w * x.y, w * x.z, w * x.w);
}

// y = x normalised, of `length` rows, as an operand; for the backward y and 1 / deviation also go
// to kept_y and kept_rstd, if those are not nullptr.
template <class H, int R>
__device__ __forceinline__ void layer_norm(float* y, const float* x, int length, float epsilon,
                                           float* kept_y, float* kept_rstd) {
  const RowPosition<H> at;
  [[maybe_unused]] constexpr int unrolled = H::ahead ? RowPosition<H>::template rounds<R> : 1;
#pragma unroll(unrolled)
  for (int n = 0; n < RowPosition<H>::template rounds<R>; ++n) {
    const int row = at.row(n);
    const bool in = row < length;
    float4 v = in ? load4(x + row * row_stride + at.channel) : make_float4(0, 0, 0, 0);
    const float mean = row_sum(sum_of(v)) / width;
    v = make_float4(v.x - mean, v.y - mean, v.z - mean, v.w - mean);
    const float rstd = 1 / sqrtf(row_sum(dot_of(v, v)) / width + epsilon);
    v = times(rstd, v);
    if (!in) continue;
    store4(y + row * row_stride + at.channel, operand<H::precision>(v));
    if (!kept_y) continue;
    store4(kept_y + row * width + at.channel, v);
    if (at.channel == 0) kept_rstd[row] = rstd;
  }
}

// dx += the gradient through the norm, of rows whose normalised values are y; then branch (may be
// dy's memory) = dropout's mask times dx, what flows into the branch that ends there, as an operand
// where H says so.
template <int R, class H = How<Precision::fp32, false>>
__device__ __forceinline__ void layer_norm_backward(float* dx, float* branch, const float* dy,
                                                    const float* y, const float* rstd, int length,
                                                    const uint8_t* mask, const Dropout& dropout) {
  const RowPosition<H> at;
  [[maybe_unused]] constexpr int unrolled = H::ahead ? RowPosition<H>::template rounds<R> : 1;
#pragma unroll(unrolled)
  for (int n = 0; n < RowPosition<H>::template rounds<R>; ++n) {
    const int row = at.row(n), place = row * row_stride + at.channel;
    const bool in = row < length;
    const float r = in ? rstd[row] : 0.f;
    const float4 zero = make_float4(0, 0, 0, 0);
    const float4 d = in ? load4(dy + place) : zero, v = in ? load4(y + place) : zero;
    //@ gap 16 norm-gradient
    const float mean = row_sum(sum_of(d)) / width, mean_y = row_sum(dot_of(d, v)) / width;
    if (!in) continue;
    float4 to = load4(dx + place);
    to.x += r * (d.x - mean - v.x * mean_y), to.y += r * (d.y - mean - v.y * mean_y);
    to.z += r * (d.z - mean - v.z * mean_y), to.w += r * (d.w - mean - v.w * mean_y);
    store4(dx + place, to);
    const unsigned bits = dropout.on() ? mask[row * 8 + at.channel / 8] >> at.channel % 8 : 0u;
    store4(branch + place,
           operand<H::precision>(
               make_float4(dropout.factor(bits) * to.x, dropout.factor(bits >> 1) * to.y,
                           dropout.factor(bits >> 2) * to.z, dropout.factor(bits >> 3) * to.w)));
    //@ end
  }
}

// Start copies to shared memory, which wait_for_copies() ends. 16 bytes at a time, past the
// first-level cache, so that what another block has written is seen.
template <class H>
__device__ __forceinline__ void copy_rows(float* to, const float* from, int rows) {
  for (int e = this_thread<H>(); e < rows * (width / 4); e += threads)
    __pipeline_memcpy_async(to + e / 16 * row_stride + e % 16 * 4, from + e * 4, 16);
}
template <class H>
__device__ __forceinline__ void copy_matrix(float* to, const float* from) {
#pragma unroll
  for (int n = 0; n < matrix / 4 / threads; ++n) {
    const int e = n * threads + this_thread<H>();
    __pipeline_memcpy_async(to + e / 16 * row_stride + e % 16 * 4, from + e * 4, 16);
  }
}
template <class H>
__device__ __forceinline__ void copy_floats(float* to, const float* from, int floats) {
  for (int e = 4 * this_thread<H>(); e < floats; e += 4 * threads)
    __pipeline_memcpy_async(to + e, from + e, 16);
}
// All of this thread's copies, and then everyone's.
__device__ __forceinline__ void wait_for_copies() {
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();
}

}  // namespace focus::gpu::one_launch
