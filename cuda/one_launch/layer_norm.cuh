// What is done row by row: layer normalisation forward and backward, and moving rows. Half a warp
// owns a row, four channels a lane.
#pragma once

#include "cuda/one_launch/arguments.cuh"

namespace focus::gpu::one_launch {

// A thread's row in round n, and its first channel. All lanes go through every round, since they
// shuffle together; rows beyond the last hold nothing.
template <class H>
struct RowPlace {
  int half, channel;
  __device__ RowPlace() : half(this_thread<H>() / 16), channel(this_thread<H>() % 16 * 4) {}
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
  const RowPlace<H> at;
  [[maybe_unused]] constexpr int unrolled = H::ahead ? RowPlace<H>::template rounds<R> : 1;
#pragma unroll(unrolled)
  for (int n = 0; n < RowPlace<H>::template rounds<R>; ++n) {
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
  const RowPlace<H> at;
  [[maybe_unused]] constexpr int unrolled = H::ahead ? RowPlace<H>::template rounds<R> : 1;
#pragma unroll(unrolled)
  for (int n = 0; n < RowPlace<H>::template rounds<R>; ++n) {
    const int row = at.row(n), place = row * row_stride + at.channel;
    const bool in = row < length;
    const float r = in ? rstd[row] : 0.f;
    const float4 zero = make_float4(0, 0, 0, 0);
    const float4 d = in ? load4(dy + place) : zero, v = in ? load4(y + place) : zero;
    //@ begin 16 norm-gradient points=3
    //@ plan d holds the thread's four numbers of dy, v those of y; 16 lanes hold a row. The means
    //@ plan over the row: of d, and of d · v (row_sum, sum_of, dot_of). Lanes whose row is not `in`
    //@ plan go on to the next row, after the sums. Add r · (d - mean - v · mean_y) to the four
    //@ plan numbers at dx + place; then write them, each times dropout.factor(its bit), to branch +
    //@ plan place, as operand<H::precision>(…), which rounds for tensor cores where those multiply.
    //@ plan The bits of the row are at mask + 8 · row, a bit a channel.
    //@ hint 1 What happens to a warp whose one half has left the loop when the other calls row_sum?
    //@ hint 2 README, "Half a warp a row", has the formula and where the bits are; load4, store4.
    //@ hint 2 dropout.factor(bits) looks at the lowest bit only.
    //@ hint 3 mean = row_sum(sum_of(d)) / width; mean_y = row_sum(dot_of(d, v)) / width
    //@ hint 3 if (!in) continue;
    //@ hint 3 to = load4(dx + place); each of its four += r · (d - mean - v · mean_y)
    //@ hint 3 store4(dx + place, to)
    //@ hint 3 bits = dropout.on() ? mask[row * 8 + at.channel / 8] >> at.channel % 8 : 0
    //@ hint 3 store4(branch + place, operand<H::precision>(of factor(bits) · to.x, …))
    //@ notice Two results in one pass: the gradient that goes past the branch, and the one that
    //@ notice goes into it. Launched one by one, these were three kernels and three trips through
    //@ notice memory.
    //@ mutant(0) norm-leaves-early: lanes without a row leave before the sums of their warp
    //~ if (!in) continue;
    //@ mutant norm-no-mean: the mean of the gradient is not subtracted
    //~ const float mean = 0, mean_y = row_sum(dot_of(d, v)) / width;
    //@ mutant norm-no-product: the part along y is not subtracted
    //~ const float mean = row_sum(sum_of(d)) / width, mean_y = 0;
    const float mean = row_sum(sum_of(d)) / width, mean_y = row_sum(dot_of(d, v)) / width;
    if (!in) continue;
    //@ mutant norm-sets: the gradient is set, what was there is lost
    //~ float4 to = make_float4(0, 0, 0, 0);
    float4 to = load4(dx + place);
    to.x += r * (d.x - mean - v.x * mean_y), to.y += r * (d.y - mean - v.y * mean_y);
    to.z += r * (d.z - mean - v.z * mean_y), to.w += r * (d.w - mean - v.w * mean_y);
    store4(dx + place, to);
    //@ mutant norm-first-bits: every channel looks at the first bits of its byte
    //~ const unsigned bits = dropout.on() ? mask[row * 8 + at.channel / 8] : 0u;
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
