// What a training step does beside the model: taking the batch from the data, the gradient's norm,
// clipping, SGD and Adam, the counters. See src/train/optimizer.h for the formulas.
#include <algorithm>

#include "cuda/device/launch.h"
#include "cuda/ops/ops.h"
#include "cuda/ops/warp.cuh"

namespace focus::gpu {

namespace {

__global__ void gather_batch_kernel(BatchSource source, const Counters* counters, int runs, int B,
                                    int* tokens, int* labels) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t T = size_t(source.length), rows = size_t(source.rows);
  const size_t run = i / (size_t(B) * T), b = i / T % size_t(B), t = i % T;
  if (run >= size_t(runs)) return;
  const size_t place = size_t(counters->step) * size_t(source.per_step) + b;
  const size_t row = source.order ? size_t(source.order[run * rows + place]) : place;
  const int stride = source.order ? source.order_stride : source.row_stride;
  const int* const from = source.tokens[run] + row * size_t(stride);
  tokens[i] = from[t];
  const size_t targets = size_t(source.targets);
  if (t < targets)
    labels[(run * size_t(B) + b) * targets + t] =
        source.labels ? source.labels[run][row] : from[T + 1 - targets + t];
}

constexpr int per_block = 2048, threads = 256;

// squares (R,blocks): sums of `per_block` squares each, in double.
__global__ void gradient_squares(const float* gradient, const float* rate_factor, size_t stride,
                                 size_t n, double* squares, int blocks) {
  SharedMemory shared;
  double* part = shared.array<double>(threads / 32);
  const size_t run = blockIdx.x / unsigned(blocks);
  const size_t first = size_t(blockIdx.x) % size_t(blocks) * per_block;
  const float* g = gradient + run * stride;
  double sum = 0;
#pragma unroll
  for (size_t e = first + threadIdx.x; e < first + per_block; e += threads) {
    const bool trained = e < n && (!rate_factor || rate_factor[run * stride + e] != 0);
    const double x = trained ? double(g[e]) : 0;
    sum += x * x;
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < threads / 32; ++w) sum += part[w];
  squares[blockIdx.x] = sum;
}

__global__ void update_parameters_kernel(Update u, size_t stride, const double* squares, int blocks,
                                         const Counters* counters, BadStep* bad) {
  const size_t run = blockIdx.x / unsigned(blocks), lane = threadIdx.x % 32;
  // Every warp adds the same numbers in the same order.
  double sum = 0;
  for (size_t b = lane; b < size_t(blocks); b += 32) sum += squares[run * size_t(blocks) + b];
  const double norm = sqrt(warp_sum(sum));
  const float loss = u.loss[run];
  const bool finite = loss - loss == 0.f && norm - norm == 0.;  // neither NaN nor Inf
  if (!finite) {  // the weights stay; the first such step is remembered
    if (blockIdx.x % unsigned(blocks) == 0 && threadIdx.x == 0 && bad[run].step < 0)
      bad[run] = {int(counters->step), loss, float(norm)};
    return;
  }
  const double clipped = u.clip / (norm + 1e-6);
  const float factor = u.clip > 0 && clipped < 1 ? float(clipped) : 1.f, lr = u.rate[run];
  float rate = 0, root = 0;
  if (u.adam) {
    const double t = double(counters->optimizer_steps + 1);
    rate = float(double(lr) / (1 - pow(0.9, t)));
    root = float(1 / sqrt(1 - pow(0.999, t)));
  }
  // All is read before anything is written, which to the compiler might be the same.
  constexpr int each = per_block / threads;
  const size_t first = size_t(blockIdx.x) % size_t(blocks) * per_block + threadIdx.x;
  const size_t from = run * stride + first;
  const size_t left = first < u.parameters ? (u.parameters - first + threads - 1) / threads : 0;
  const int count = left < each ? int(left) : each;
  float g[each], value[each], m[each], v[each];
#pragma unroll
  for (int k = 0; k < each; ++k)
    if (k < count) {
      const size_t i = from + size_t(k * threads);
      g[k] = factor * u.gradient[i], value[k] = u.value[i];
      if (u.adam) m[k] = u.m[i], v[k] = u.v[i];
    }
#pragma unroll
  for (int k = 0; k < each; ++k)
    if (k < count) {
      const size_t i = from + size_t(k * threads);
      const float own = u.rate_factor ? u.rate_factor[i] : 1.f;
      if (own == 0) continue;
      if (!u.adam) {
        u.value[i] = value[k] - lr * own * g[k];
        continue;
      }
      u.m[i] = m[k] = 0.9f * m[k] + 0.1f * g[k];
      u.v[i] = v[k] = 0.999f * v[k] + float(1 - 0.999) * g[k] * g[k];
      u.value[i] = value[k] - rate * own * m[k] / (sqrtf(v[k]) * root + 1e-8f);
    }
}

__global__ void finish_step_kernel(Counters* counters, const float* loss, float* losses, int steps,
                                   int runs) {
  const int step = int(counters->step);
  __syncthreads();  // all have read it
  for (int r = int(threadIdx.x); losses && r < runs; r += int(blockDim.x))
    losses[size_t(r) * size_t(steps) + size_t(step)] = loss[r];
  if (threadIdx.x == 0) ++counters->optimizer_steps, ++counters->noise_step, ++counters->step;
}

__global__ void fill_numbers_kernel(float* x, size_t n, float value) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) x[i] = value;
}

// A thread makes one weight of every run.
__global__ void place_on_plane_kernel(int runs, size_t stride, size_t parameters,
                                      const double* plane, const double* points, float* values) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= parameters) return;
  const double centre = plane[i], X = plane[parameters + i], Y = plane[2 * parameters + i];
  for (int r = 0; r < runs; ++r)
    values[size_t(r) * stride + i] = float(centre + points[2 * r] * X + points[2 * r + 1] * Y);
}

}  // namespace

void gather_batch(const Runs& runs, const BatchSource& source, int B, const Counters* counters,
                  int* tokens, int* labels, void* stream) {
  const size_t n = size_t(runs.count) * size_t(B) * size_t(source.length);
  launch({"gather_batch", (n + 255) / 256, 256}, stream, gather_batch_kernel, source, counters,
         runs.count, B, tokens, labels);
}

namespace {
int blocks_of(size_t parameters) {
  return int((parameters + per_block - 1) / per_block);
}
}  // namespace

size_t update_squares(const Runs& runs, size_t parameters) {
  return size_t(blocks_of(parameters)) * size_t(runs.count);
}

void update_parameters(const Runs& runs, const Update& u, const Counters* counters, double* squares,
                       BadStep* bad, void* stream) {
  const int blocks = blocks_of(u.parameters);
  const size_t all = update_squares(runs, u.parameters);
  launch({"gradient_squares", all, threads, shared_bytes_for(2 * threads / 32)}, stream,
         gradient_squares, u.gradient, u.rate_factor, runs.stride, u.parameters, squares, blocks);
  launch({"update_parameters", all, threads}, stream, update_parameters_kernel, u, runs.stride,
         squares, blocks, counters, bad);
}

void finish_step(const Runs& runs, Counters* counters, const float* loss, float* losses, int steps,
                 void* stream) {
  launch({"finish_step", 1, 32}, stream, finish_step_kernel, counters, loss, losses, steps,
         runs.count);
}

void fill_numbers(float* x, size_t n, float value, void* stream) {
  launch({"fill_numbers", (n + 255) / 256, 256}, stream, fill_numbers_kernel, x, n, value);
}

void place_on_plane(const Runs& runs, size_t parameters, const double* plane, const double* points,
                    float* values, void* stream) {
  launch({"place_on_plane", (parameters + 255) / 256, 256}, stream, place_on_plane_kernel,
         runs.count, runs.stride, parameters, plane, points, values);
}

}  // namespace focus::gpu
