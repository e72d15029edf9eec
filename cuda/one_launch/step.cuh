// The two kernels: train_steps, which makes whole training steps for all runs, and evaluate_rows.
// The files step_*.cu compile them, one for each precision.
//
// A block of threads is one of its run's `blocks_a_run`; with as many as the batch has sequences
// each has one sequence, with fewer they take turns, with more some only sum and update. All blocks
// of a launch are on the device at once.
//
// Measured on an H100, ms a step of one run with full attention at 40 tokens: 0.301 at first; 0.257
// with the loads of a product's step before its multiply-adds; 0.249 with loads from memory before
// other work; 0.244 with blocks that only sum and update; 0.234 with both products of a layer's
// backward at once (linear_backward.cuh) and dropout's masks shared out better; 0.220 with fewer
// latencies behind each other. Ten runs fell from 0.475 to 0.411, most of it by registers that no
// longer spill (this_thread in matmul.cuh). No gain: two sequences in a block of 512 threads, half
// of the runs half a step later, parts written past the cache or summed a layer earlier. Half of
// the time are products; the rest is some 100 short phases, each a chain of latencies.
#pragma once

#include <algorithm>
#include <cmath>

#include "cuda/device/launch.h"
#include "cuda/one_launch/block_backward.cuh"
#include "cuda/one_launch/embed_and_classify.cuh"
#include "cuda/one_launch/kernels.h"
#include "cuda/one_launch/update.cuh"

namespace focus::gpu::one_launch {

// A block's shared memory.
template <int R>
struct Memory {
  float *arrays, *slots, *rstd;
  uint8_t* masks;
  int* tokens;
  ClassifierMemory classifier;
  double* sums;
  RunOnDevice* run;  // in training; read where it is needed, device memory would answer late

  // mask_bytes: 0 in evaluation.
  __device__ explicit Memory(int mask_bytes) {
    SharedMemory shared;
    arrays = shared.array<float>(5 * array_size<R>);
    slots = shared.array<float>(first_slot_size<R> + slot_size<R> + last_slot_size<R>);
    tokens = shared.array<int>(longest);
    rstd = classifier.parts = shared.array<float>(4 * width);  // backward and forward
    classifier.mean = shared.array<float>(width);
    classifier.logits = shared.array<float>(most_classes);
    sums = shared.array<double>(warps);
    run = shared.array<RunOnDevice>(1);
    masks = shared.array<uint8_t>((mask_bytes + 15) / 16 * 16);
    // Rows beyond the length are read by sums over whole tiles, and never written.
    for (int e = int(threadIdx.x); e < 5 * array_size<R>; e += threads) arrays[e] = 0;
  }
  static size_t bytes(int mask_bytes) {
    return shared_bytes_for(
        5 * array_size<R>, first_slot_size<R> + slot_size<R> + last_slot_size<R>, longest,
        4 * width, width, most_classes, 2 * warps, sizeof(RunOnDevice) / 4, (mask_bytes + 3) / 4);
  }
};

// The loss of one sequence, in every lane of warp 0, and what the classifier needs for its backward
// in memory.classifier.
template <class H, int R>
__device__ __forceinline__ double forward(Sequence<H, R>& s, Memory<R>& memory, const int* tokens,
                                          int label, float scale) {
  if (s.drawn) {
    for (int e = 16 * this_thread<H>(); e < s.p.mask_stride; e += 16 * threads)
      __pipeline_memcpy_async(s.masks + e, s.drawn + e, 16);
    __pipeline_commit();
  }
  s.fetch(0, query), s.fetch(0, key), s.fetch(0, value);
  for (int t = this_thread<H>(); t < s.p.length; t += threads) memory.tokens[t] = tokens[t];
  if (s.drawn) __pipeline_wait_prior(0);  // not for the weights
  __syncthreads();
  embed(s, memory.tokens);
  __syncthreads();
  for (int block = 0; block < s.p.blocks; ++block) block_forward(s, block);
  classify(s, memory.classifier);
  return threadIdx.x < 32 ? cross_entropy(memory.classifier.logits, s.p.classes, label, scale)
                          : 0.0;
}

template <class H, int R>
__device__ __forceinline__ void train_sequence(Sequence<H, R>& s, Memory<R>& memory, int run,
                                               int row, int count) {
  const Plan& p = s.p;
  const double loss = forward(s, memory, s.run.tokens + ptrdiff_t(row) * p.length,
                              s.run.labels[row], 1.f / float(count));
  if (threadIdx.x == 0) p.sequence_losses[ptrdiff_t(run) * p.batch + s.place] = loss;
  fetch_for_backward(s, p.blocks - 1, false);  // its weights are still there
  __syncthreads();
  classifier_backward(s, memory.classifier);
  for (int block = p.blocks - 1; block >= 0; --block) block_backward(s, block);
  __syncthreads();
  embedding_gradient(s, memory.tokens, s.array(0));
  __syncthreads();  // the memory is used
}

// SHARING blocks on each multiprocessor; alone, a thread has twice the registers.
template <Precision P, int R, int SHARING>
__global__ void __launch_bounds__(threads, SHARING) train_steps(Plan p) {
  Memory<R> memory(p.attention_mask_of(p.blocks));
  const int run = int(blockIdx.x) / p.blocks_a_run, part = int(blockIdx.x) % p.blocks_a_run;
  if (int(blockIdx.x) == p.absent) return;
  if (threadIdx.x == 0) *memory.run = p.run[run];
  __syncthreads();
  const RunOnDevice& r = *memory.run;
  unsigned barriers = 0;
  for (int n = 0; n < p.steps; ++n) {
    const int first = (p.first_step + n) * p.batch;
    const int count = p.rows - first < p.batch ? p.rows - first : p.batch;
    const unsigned step = r.steps_before + unsigned(p.first_step + n);
    for (int b = part; b < count; b += p.blocks_a_run) {
      float* const gradient = p.partials + (ptrdiff_t(run) * p.batch + b) * p.padded;
      const uint8_t* drawn = p.drawn_ahead() && n > 0 ? p.masks_of(run, n, b) : nullptr;
      Sequence<How<P, SHARING == 1>, R> s{p,
                                          r,
                                          memory.arrays,
                                          memory.slots,
                                          memory.rstd,
                                          memory.masks,
                                          drawn,
                                          {r.seed, step},
                                          b,
                                          gradient,
                                          {}};
      train_sequence(s, memory, run, r.order[first + b], count);
    }
    for (int b = part - p.batch; b >= 0 && b < p.batch; b += p.blocks_a_run - p.batch)
      draw_all_masks(p, p.masks_of(run, n + 1, b), {r.seed, step + 1}, b);
    //@ gap 16 end-of-step
    if (!wait_for_run(p, run, ++barriers)) return;
    sum_gradients(p, run, part, count, memory.sums);
    if (!wait_for_run(p, run, ++barriers)) return;
    const StepResult result = step_result(p, run, count, memory.sums);
    const bool finite = std::isfinite(result.loss) && std::isfinite(result.norm);
    if (part == 0 && threadIdx.x == 0) {
      p.losses[ptrdiff_t(run) * p.steps + n] = float(result.loss);
      p.norms[ptrdiff_t(run) * p.steps + n] = result.norm;
      p.made[run] = finite ? n + 1 : -(n + 1);
    }
    if (!finite) return;
    update(p, run, part, result.norm, step + 1);
    if (!wait_for_run(p, run, ++barriers)) return;
    //@ end
  }
}

// A block for each row of each run: short ones, between which a launch of steps finds room. On
// tensor cores loads ahead of their products cost more registers than they save time: ten runs'
// evaluation takes 18.4 ms without, 19.4 with (tf32); in float32 31.5 and 30.0.
template <Precision P, int R>
__global__ void __launch_bounds__(threads, R == 5 ? 2 : 1) evaluate_rows(Plan p) {
  Memory<R> memory(0);
  __syncthreads();
  const int run = int(blockIdx.x) / p.rows, row = int(blockIdx.x) % p.rows;
  const RunOnDevice& r = p.run[run];
  Sequence<How<P, P == Precision::fp32>, R> s{
      p, r, memory.arrays, memory.slots, memory.rstd, nullptr, nullptr, {}, 0, nullptr, {}};
  const int label = r.labels[row];
  const double loss = forward(s, memory, r.tokens + ptrdiff_t(row) * p.length, label, 0.f);
  if (threadIdx.x != 0) return;
  int best = 0;
  for (int n = 1; n < p.classes; ++n)
    if (memory.classifier.logits[n] > memory.classifier.logits[best]) best = n;
  p.row_losses[blockIdx.x] = loss;
  p.row_right[blockIdx.x] = best == label;
}

template <Precision P>
size_t Step<P>::shared_bytes(int length, int mask_bytes) {
  return length <= 40 ? Memory<5>::bytes(mask_bytes) : Memory<6>::bytes(mask_bytes);
}

template <Precision P>
int Step<P>::training_blocks_at_once(int length, int mask_bytes) {
  const size_t bytes = shared_bytes(length, mask_bytes);
  return length <= 40 ? blocks_at_once(train_steps<P, 5, 2>, threads, bytes)
                      : blocks_at_once(train_steps<P, 6, 1>, threads, bytes);
}

template <Precision P>
void Step<P>::train(const Plan& p, int mask_bytes, void* stream) {
  const LaunchSize size{"train_steps", size_t(p.runs) * size_t(p.blocks_a_run), threads,
                        shared_bytes(p.length, mask_bytes), true};
  const bool alone = size.blocks <= size_t(p.multiprocessors);
  launch(size, stream,
         p.length > 40 ? train_steps<P, 6, 1>
         : alone       ? train_steps<P, 5, 1>
                       : train_steps<P, 5, 2>,
         p);
}

template <Precision P>
void Step<P>::evaluate(const Plan& p, void* stream) {
  const LaunchSize size{"evaluate_rows", size_t(p.runs) * size_t(p.rows), threads,
                        shared_bytes(p.length, 0)};
  launch(size, stream, p.length <= 40 ? evaluate_rows<P, 5> : evaluate_rows<P, 6>, p);
}

}  // namespace focus::gpu::one_launch
