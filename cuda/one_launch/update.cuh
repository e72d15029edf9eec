// After all sequences of a batch: the gradient as the sum of their parts, its norm, clip and
// update, shared out among the blocks of a run, with barriers between.
//
// Chunks of 1024 parameters are dealt to the blocks in turn. Every sum has one order, whatever the
// number of blocks: sequence after sequence, and the norm chunk after chunk.
#pragma once

#include "cuda/one_launch/arguments.cuh"

namespace focus::gpu::one_launch {

// Waits until all blocks of the run have come for the n-th time (from 1); what they wrote to device
// memory before is then seen by all. False if one of them did not come: then the kernel must end.
__device__ inline bool wait_for_run(const Plan& p, int run, unsigned n) {
  __syncthreads();  // everyone's writes come before the announcement
  bool lost = false;
  //@ gap 16 grid-barrier
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(&p.arrived[run], 1u);
    const unsigned all = n * unsigned(p.blocks_a_run);
    const volatile unsigned* arrived = &p.arrived[run];
    const volatile int* gave_up = p.gave_up;
    const long long start = nanoseconds();
    while (*arrived < all && !lost) {
      spin();
      lost = *gave_up != 0 || nanoseconds() - start > p.patience;
    }
    if (lost) *p.gave_up = 1;
    __threadfence();
  }
  //@ end
  return !__syncthreads_or(lost);
}

// The sum of a number of each thread, in all of them.
__device__ inline double sum_of_threads(double x, double* scratch) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(all_lanes, x, lanes);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  double sum = 0;
  for (int w = 0; w < warps; ++w) sum += scratch[w];
  __syncthreads();  // scratch may be used again
  return sum;
}

__device__ __forceinline__ float4 load4_cg(const float* at) {
  return __ldcg(reinterpret_cast<const float4*>(at));
}

// gradients = the sum of the parts of `count` sequences, for this block's chunks, and the sum of
// their squares for the norm.
__device__ inline void sum_gradients(const Plan& p, int run, int part, int count, double* scratch) {
  const float* partials = p.partials + ptrdiff_t(run) * p.batch * p.padded;
  for (int n = part; n < p.chunks; n += p.blocks_a_run) {
    const int e = n * chunk + 4 * int(threadIdx.x);
    double squares = 0;
    //@ gap 16 sum-parts
    if (e < p.padded) {
      float4 sum = make_float4(0, 0, 0, 0);
      const float* from = partials + e;
      // Thirteen loads at once. By hand: told to unroll a loop up to `count`, nvcc 13.0 forgets to
      // stop at a count that is no multiple.
      constexpr int at_once = 13;
      for (int first = 0; first < count; first += at_once) {
        float4 x[at_once];
#pragma unroll
        for (int b = 0; b < at_once; ++b)
          x[b] = first + b < count ? load4_cg(from) : make_float4(0, 0, 0, 0), from += p.padded;
#pragma unroll
        for (int b = 0; b < at_once; ++b)
          sum.x += x[b].x, sum.y += x[b].y, sum.z += x[b].z, sum.w += x[b].w;
      }
      store4(p.run[run].gradients + e, sum);
      squares = double(sum.x) * double(sum.x) + double(sum.y) * double(sum.y) +
                double(sum.z) * double(sum.z) + double(sum.w) * double(sum.w);
    }
    //@ end
    if (e < p.padded && p.run[run].rate_factor(e) == 0) squares = 0;  // it is not trained
    squares = sum_of_threads(squares, scratch);
    if (threadIdx.x == 0) p.chunk_sums[ptrdiff_t(run) * p.chunks + n] = squares;
  }
}

// Loss and gradient norm of a step, the same in every block of the run.
struct StepResult {
  double loss, norm;
};
__device__ inline StepResult step_result(const Plan& p, int run, int count, double* scratch) {
  //@ gap 16 loss-and-norm
  double squares = 0, loss = 0;
  for (int n = int(threadIdx.x); n < p.chunks; n += threads)
    squares += __ldcg(p.chunk_sums + ptrdiff_t(run) * p.chunks + n);
  for (int b = int(threadIdx.x); b < count; b += threads)
    loss += __ldcg(p.sequence_losses + ptrdiff_t(run) * p.batch + b);
  squares = sum_of_threads(squares, scratch);
  loss = sum_of_threads(loss, scratch);
  return {loss / count, sqrt(squares)};
  //@ end
}

// As Optimizer::step. taken: the run's steps with this one, from 1.
__device__ inline void update(const Plan& p, int run, int part, double norm, unsigned taken) {
  const RunOnDevice& r = p.run[run];
  const double limit = r.clip / (norm + 1e-6);
  const float factor = r.clip > 0 && limit < 1 ? float(limit) : 1.f;
  const bool adam = p.optimizer == OptimizerKind::adam;
  const float rate_of_all = adam ? float(r.rate_of_lr / (1 - pow(0.9, double(taken)))) : r.lr;
  const float root = adam ? float(1 / sqrt(1 - pow(0.999, double(taken)))) : 0.f;
  for (int n = part; n < p.chunks; n += p.blocks_a_run) {
    const int e = n * chunk + 4 * int(threadIdx.x);
    if (e >= p.padded) continue;
    const float rate = rate_of_all * r.rate_factor(e);
    if (rate == 0) continue;
    const float4 gradient = load4(r.gradients + e), before = load4_cg(r.parameters + e);
    float g[4] = {gradient.x, gradient.y, gradient.z, gradient.w};
    float w[4] = {before.x, before.y, before.z, before.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      g[i] *= factor;
      if (!adam) {
        w[i] = fmaf(-rate, g[i], w[i]);  // in every kernel the same bits
        continue;
      }
      const float m = 0.9f * r.m[e + i] + float(1 - 0.9) * g[i];
      const float v = 0.999f * r.v[e + i] + float(1 - 0.999) * g[i] * g[i];
      r.m[e + i] = m, r.v[e + i] = v;
      w[i] -= rate * m / (sqrtf(v) * root + 1e-8f);
    }
    store4(r.parameters + e, make_float4(w[0], w[1], w[2], w[3]));
  }
}

}  // namespace focus::gpu::one_launch
