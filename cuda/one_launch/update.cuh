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
  //@ begin 16 grid-barrier points=5
  //@ plan Thread 0 of the block alone: __threadfence(); add 1 to p.arrived[run] with atomicAdd;
  //@ plan then wait, spin() in every turn, until n times p.blocks_a_run have arrived. Read the
  //@ plan counter through a pointer to volatile. Give up (lost = true) when *p.gave_up is set or
  //@ plan nanoseconds() is more than p.patience past the start; who gives up sets *p.gave_up.
  //@ plan After the wait, __threadfence() again. The other threads wait in the line below.
  //@ hint 1 The counter is never set back to 0. How many arrivals has it seen when all blocks are
  //@ hint 1 at the third barrier?
  //@ hint 2 README, "A barrier for a whole grid": the four lines of the drawing, and what volatile
  //@ hint 2 and the fences are for. atomicAdd(&p.arrived[run], 1u); spin() is in simt/simt.h.
  //@ hint 3 if threadIdx.x is 0:
  //@ hint 3   fence; atomicAdd; start = nanoseconds()
  //@ hint 3   while (the counter, read as volatile, is less than n · blocks_a_run and not lost):
  //@ hint 3     spin(); lost = gave_up is set, or nanoseconds() - start > p.patience
  //@ hint 3   if lost: *p.gave_up = 1
  //@ hint 3   fence
  //@ notice Counting on instead of back to 0 saves a second barrier: the one that would keep fast
  //@ notice blocks from arriving at the next barrier before slow ones have left this one.
  //@ mutant barrier-every-thread: every thread of a block announces its arrival, not one of them
  //~ {
  if (threadIdx.x == 0) {
    __threadfence();
    //@ mutant barrier-run-0: the blocks of all runs are counted together
    //~ atomicAdd(&p.arrived[0], 1u);
    atomicAdd(&p.arrived[run], 1u);
    //@ mutant barrier-only-once: the second barrier waits for as many arrivals as the first
    //~ const unsigned all = unsigned(p.blocks_a_run);
    const unsigned all = n * unsigned(p.blocks_a_run);
    const volatile unsigned* arrived = &p.arrived[run];
    const volatile int* gave_up = p.gave_up;
    const long long start = nanoseconds();
    //@ mutant barrier-one-more: it waits for one arrival more than there are blocks
    //~ while (*arrived <= all && !lost) {
    while (*arrived < all && !lost) {
      spin();
      //@ mutant barrier-patience: it waits for ever
      //~ lost = *gave_up != 0;
      //@ mutant barrier-alone: it does not look whether another block has given up
      //~ lost = nanoseconds() - start > p.patience;
      lost = *gave_up != 0 || nanoseconds() - start > p.patience;
    }
    //@ mutant barrier-silent: who gives up does not tell the others
    //~ (void)0;
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
    //@ begin 16 sum-parts points=3
    //@ plan If e < p.padded: add the four numbers at e of the parts of sequences 0 … count-1, in
    //@ plan this order; part b begins at partials + ptrdiff_t(b) * p.padded, load4_cg reads four.
    //@ plan store4 the sum to p.run[run].gradients + e; squares = the sum of its four squares, in
    //@ plan double.
    //@ hint 1 Which number of which part is the second that this thread adds to sum.x?
    //@ hint 2 README, "A sum in one order"; the last batch of an epoch may have fewer than p.batch
    //@ hint 2 sequences: that is why count is an argument.
    //@ hint 3 float4 sum = 0; for b from 0 to count - 1:
    //@ hint 3   x = load4_cg(partials + ptrdiff_t(b) * p.padded + e); add its x, y, z, w to sum's
    //@ hint 3 store4(p.run[run].gradients + e, sum)
    //@ hint 3 squares = double(sum.x) · double(sum.x) + … of y, z and w
    //@ notice Which block adds which chunk depends on how many blocks there are; in which order a
    //@ notice number's parts are added does not. So the bits do not, either. Ours has thirteen
    //@ notice loads under way at once: one after another, each would wait for the one before.
    if (e < p.padded) {
      float4 sum = make_float4(0, 0, 0, 0);
      const float* from = partials + e;
      // Thirteen loads at once. By hand: told to unroll a loop up to `count`, nvcc 13.0 forgets to
      // stop at a count that is no multiple.
      constexpr int at_once = 13;
      //@ mutant sum-whole-batch: the parts of all p.batch sequences, also where the batch has fewer
      //~ for (int first = 0, count = p.batch; first < count; first += at_once) {
      //@ mutant sum-thirteen: the parts after the thirteenth are left out
      //~ for (int first = 0; first < 1; ++first) {
      for (int first = 0; first < count; first += at_once) {
        float4 x[at_once];
#pragma unroll
        for (int b = 0; b < at_once; ++b)
          x[b] = first + b < count ? load4_cg(from) : make_float4(0, 0, 0, 0), from += p.padded;
#pragma unroll
        for (int b = 0; b < at_once; ++b)
          //@ mutant sum-turned: from the last sequence to the first: other last bits
          //~ sum.x += x[at_once - 1 - b].x, sum.y += x[at_once - 1 - b].y,
          //~     sum.z += x[at_once - 1 - b].z, sum.w += x[at_once - 1 - b].w;
          sum.x += x[b].x, sum.y += x[b].y, sum.z += x[b].z, sum.w += x[b].w;
      }
      store4(p.run[run].gradients + e, sum);
      //@ mutant(2) sum-squares-of-three: the fourth number's square is left out
      //~ squares = double(sum.x) * double(sum.x) + double(sum.y) * double(sum.y) +
      //~           double(sum.z) * double(sum.z);
      squares = double(sum.x) * double(sum.x) + double(sum.y) * double(sum.y) +
                double(sum.z) * double(sum.z) + double(sum.w) * double(sum.w);
    }
    //@ end
    squares = sum_of_threads(squares, scratch);
    if (threadIdx.x == 0) p.chunk_sums[ptrdiff_t(run) * p.chunks + n] = squares;
  }
}

// Loss and gradient norm of a step, the same in every block of the run.
struct StepResult {
  double loss, norm;
};
__device__ inline StepResult step_result(const Plan& p, int run, int count, double* scratch) {
  //@ begin 16 loss-and-norm points=2
  //@ plan Add the run's p.chunks numbers of p.chunk_sums and its first `count` numbers of
  //@ plan p.sequence_losses: each thread takes every `threads`-th, sum_of_threads(x, scratch) adds
  //@ plan up the threads'. Run r's begin at r · p.chunks and at r · p.batch; other blocks wrote
  //@ plan them, so read with __ldcg. Return {mean of the losses, root of the sum of squares}.
  //@ hint 1 Each block has summed the squares of some chunks. Who may sum these, and after what?
  //@ hint 2 README, "The norm before the update"; sum_of_threads stands above, and all threads of
  //@ hint 2 the block must call it.
  //@ hint 3 squares = 0; for n = threadIdx.x, + threads, … below p.chunks:
  //@ hint 3   squares += __ldcg(p.chunk_sums + ptrdiff_t(run) * p.chunks + n)
  //@ hint 3 loss likewise, b below count, from p.sequence_losses + ptrdiff_t(run) * p.batch + b
  //@ hint 3 both through sum_of_threads(…, scratch); return {loss / count, sqrt(squares)}
  //@ notice Every block of the run makes this sum for itself: some hundred additions cost less
  //@ notice than letting one block do it and having the others wait for a fourth barrier.
  double squares = 0, loss = 0;
  //@ mutant norm-first-chunk: only the first chunk's squares are counted
  //~ for (int n = int(threadIdx.x); n < 1; n += threads)
  for (int n = int(threadIdx.x); n < p.chunks; n += threads)
    //@ mutant norm-of-run-0: every run takes the first run's squares
    //~ squares += __ldcg(p.chunk_sums + n);
    squares += __ldcg(p.chunk_sums + ptrdiff_t(run) * p.chunks + n);
  for (int b = int(threadIdx.x); b < count; b += threads)
    loss += __ldcg(p.sequence_losses + ptrdiff_t(run) * p.batch + b);
  //@ mutant norm-own-numbers: a thread's own share is taken for the sum
  //~ (void)scratch;
  squares = sum_of_threads(squares, scratch);
  loss = sum_of_threads(loss, scratch);
  //@ mutant loss-of-whole-batch: the mean divides by p.batch, also where the batch has fewer
  //~ return {loss / p.batch, sqrt(squares)};
  //@ mutant norm-squared: the root is forgotten
  //~ return {loss / count, squares};
  return {loss / count, sqrt(squares)};
  //@ end
}

// As Optimizer::step. taken: the run's steps with this one, from 1.
__device__ inline void update(const Plan& p, int run, int part, double norm, unsigned taken) {
  const RunOnDevice& r = p.run[run];
  const double limit = r.clip / (norm + 1e-6);
  const float factor = r.clip > 0 && limit < 1 ? float(limit) : 1.f;
  const bool adam = p.optimizer == OptimizerKind::adam;
  const float rate = adam ? float(r.rate_of_lr / (1 - pow(0.9, double(taken)))) : r.lr;
  const float root = adam ? float(1 / sqrt(1 - pow(0.999, double(taken)))) : 0.f;
  for (int n = part; n < p.chunks; n += p.blocks_a_run) {
    const int e = n * chunk + 4 * int(threadIdx.x);
    if (e >= p.padded) continue;
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
