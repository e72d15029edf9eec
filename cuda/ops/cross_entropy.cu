// The loss, a warp for each row of logits. See src/ops/cross_entropy.cpp,
// src/ops/classifier_loss.h.
#include "cuda/device/launch.h"
#include "cuda/ops/ops.h"
#include "cuda/ops/warp.cuh"

namespace focus::gpu {

namespace {

constexpr int warps = 4;
// Of few classes the loss is in double, as on the CPU. For a vocabulary that would take as long as
// the matrix products where a GPU is slow in double.
constexpr int most_in_double = 256;

// The row of the warp, its largest logit and what its softmax is divided by.
struct Row {
  const float* logits;
  int N;
  float top, sum;

  __device__ Row(const float* all, size_t row, int n) : logits(all + row * size_t(n)), N(n) {
    const int lane = int(threadIdx.x) % 32;
    top = -INFINITY;
    for (int i = lane; i < N; i += 32) top = fmaxf(top, logits[i]);
    top = warp_max(top);
    sum = 0;
    for (int i = lane; i < N; i += 32) sum += expf(logits[i] - top);  // NaN where a logit is one
    sum = warp_sum(sum);
  }
  __device__ double loss(int label) const {
    double total = double(sum);
    if (N <= most_in_double) {
      total = 0;
      for (int i = int(threadIdx.x) % 32; i < N; i += 32)
        total += exp(double(logits[i]) - double(top));
      total = warp_sum(total);
    }
    return log(total) - (double(logits[label]) - double(top));
  }
};

__device__ size_t own_row() {
  return size_t(blockIdx.x) * warps + threadIdx.x / 32;
}

__global__ void cross_entropy_kernel(float* logits, const int* labels, double* loss, int N,
                                     size_t rows, float factor) {
  wait_for_previous();
  const size_t r = own_row();
  if (r >= rows) return;
  const Row row(logits, r, N);
  const int label = labels[r], lane = int(threadIdx.x) % 32;
  const double own = row.loss(label);
  __syncwarp();  // all have read the logits
  if (lane == 0) loss[r] = own;
  for (int i = lane; i < N; i += 32) {
    float& x = logits[r * size_t(N) + size_t(i)];
    x = factor * (expf(x - row.top) / row.sum - (i == label ? 1.f : 0.f));
  }
}

__global__ void judge_logits_kernel(const float* logits, const int* labels, double* loss,
                                    uint8_t* right, int N, size_t rows) {
  const size_t r = own_row();
  if (r >= rows) return;
  const Row row(logits, r, N);
  const int label = labels[r], lane = int(threadIdx.x) % 32;
  const double own = row.loss(label);
  // The largest logit, of equal ones the first.
  float best = -INFINITY;
  int place = N;
  for (int i = lane; i < N; i += 32)
    if (place == N || row.logits[i] > best) best = row.logits[i], place = i;
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const float x = __shfl_xor_sync(all_lanes, best, lanes);
    const int i = __shfl_xor_sync(all_lanes, place, lanes);
    if (i < N && (place == N || x > best || (x == best && i < place))) best = x, place = i;
  }
  if (lane == 0) loss[r] = own, right[r] = place == label;
}

// A block for each run: its threads add shares of the rows, one of them the shares, in order.
constexpr int sum_threads = 128;
__global__ void mean_loss_kernel(const double* rows, float* loss, int M) {
  SharedMemory shared;
  double* shares = shared.array<double>(sum_threads);
  const int t = int(threadIdx.x), share = (M + sum_threads - 1) / sum_threads;
  const double* own = rows + size_t(blockIdx.x) * size_t(M);
  double total = 0;
  for (int m = t * share; m < min((t + 1) * share, M); ++m) total += own[m];
  shares[t] = total;
  __syncthreads();  // all shares are there
  if (t != 0) return;
  for (int i = 1; i < sum_threads; ++i) total += shares[i];
  loss[blockIdx.x] = float(total / M);
}

// A thread for each sequence.
__global__ void collect_rows_kernel(BatchSource source, const Counters* counters, int B, int count,
                                    const double* loss, const uint8_t* right, double* row_loss,
                                    int* row_right) {
  const int sequence = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (sequence >= count) return;
  const size_t to = size_t(sequence / B) * size_t(source.rows) +
                    size_t(counters->step) * size_t(source.per_step) + size_t(sequence % B);
  const size_t first = size_t(sequence) * size_t(source.targets);
  double total = 0;
  int found = 0;
  for (int t = 0; t < source.targets; ++t)
    total += loss[first + size_t(t)], found += right[first + size_t(t)];
  row_loss[to] = total / source.targets, row_right[to] = found;
}

size_t blocks_for(size_t rows) {
  return (rows + warps - 1) / warps;
}

}  // namespace

void cross_entropy(size_t rows, int N, float* logits, const int* labels, float factor, double* loss,
                   void* stream) {
  launch(early({"cross_entropy", blocks_for(rows), 32 * warps}), stream, cross_entropy_kernel,
         logits, labels, loss, N, rows, factor);
}

void mean_loss(const Runs& runs, int M, const double* rows, float* loss, void* stream) {
  launch({"mean_loss", size_t(runs.count), sum_threads, shared_bytes_for(2 * sum_threads)}, stream,
         mean_loss_kernel, rows, loss, M);
}

void judge_logits(size_t rows, int N, const float* logits, const int* labels, double* loss,
                  uint8_t* right, void* stream) {
  launch({"judge_logits", blocks_for(rows), 32 * warps}, stream, judge_logits_kernel, logits,
         labels, loss, right, N, rows);
}

void collect_rows(const Runs& runs, const BatchSource& source, int B, const Counters* counters,
                  const double* loss, const uint8_t* right, double* row_loss, int* row_right,
                  void* stream) {
  const int count = runs.count * B;
  launch({"collect_rows", size_t(count + 127) / 128, 128}, stream, collect_rows_kernel, source,
         counters, B, count, loss, right, row_loss, row_right);
}

}  // namespace focus::gpu
