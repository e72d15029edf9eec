// The loss: a block for each run, a thread for each sequence. See src/ops/cross_entropy.cpp.
#include "cuda/device/launch.h"
#include "cuda/ops/ops.h"
#include "cuda/simt/simt.h"

namespace focus::gpu {

namespace {

__device__ float largest(const float* logits, int N) {
  float top = logits[0];
  for (int n = 1; n < N; ++n) top = logits[n] > top || logits[n] != logits[n] ? logits[n] : top;
  return top;
}

// In double, as on the CPU.
__device__ double row_loss(const float* logits, int N, int label) {
  const double top = double(largest(logits, N));
  double sum = 0;
  for (int n = 0; n < N; ++n) sum += exp(double(logits[n]) - top);
  return log(sum) - (double(logits[label]) - top);
}

// loss (R): the mean over a run's B rows; rows (R·B): scratch.
__global__ void loss_forward(const float* logits, const int* labels, double* rows, float* loss,
                             int B, int N) {
  const size_t first = size_t(blockIdx.x) * size_t(B);
  for (int b = int(threadIdx.x); b < B; b += int(blockDim.x)) {
    const size_t row = first + size_t(b);
    rows[row] = row_loss(logits + row * size_t(N), N, labels[row]);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  double total = 0;
  for (int b = 0; b < B; ++b) total += rows[first + size_t(b)];
  loss[blockIdx.x] = float(total / B);
}

__global__ void loss_backward(const float* logits, const int* labels, float* d_logits, int B, int N,
                              int rows) {
  const int row = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= rows) return;
  const float *in = logits + size_t(row) * size_t(N), top = largest(in, N);
  float* out = d_logits + size_t(row) * size_t(N);
  float sum = 0;
  for (int n = 0; n < N; ++n) sum += expf(in[n] - top);
  const float factor = 1 / float(B);
  for (int n = 0; n < N; ++n)
    out[n] = factor * (expf(in[n] - top) / sum - (n == labels[row] ? 1.f : 0.f));
}

__global__ void evaluate_rows_kernel(const float* logits, const int* labels,
                                     const Counters* counters, double* loss, uint8_t* right, int B,
                                     int N, int rows, int per_step, int count) {
  const int row = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= count) return;
  const float* in = logits + size_t(row) * size_t(N);
  const size_t to =
      size_t(row / B) * size_t(rows) + size_t(counters->step) * size_t(per_step) + size_t(row % B);
  int best = 0;
  for (int n = 1; n < N; ++n)
    if (in[n] > in[best]) best = n;
  loss[to] = row_loss(in, N, labels[row]);
  right[to] = best == labels[row];
}

}  // namespace

void cross_entropy_forward(const Runs& runs, int B, int N, const float* logits, const int* labels,
                           double* rows, float* loss, void* stream) {
  launch({"loss_forward", size_t(runs.count), 128}, stream, loss_forward, logits, labels, rows,
         loss, B, N);
}

void cross_entropy_backward(const Runs& runs, int B, int N, const float* logits, const int* labels,
                            float* d_logits, void* stream) {
  const int rows = runs.count * B;
  launch({"loss_backward", size_t(rows + 127) / 128, 128}, stream, loss_backward, logits, labels,
         d_logits, B, N, rows);
}

void evaluate_rows(const Runs& runs, const BatchSource& source, int B, int N, const float* logits,
                   const int* labels, const Counters* counters, double* loss, uint8_t* right,
                   void* stream) {
  const int count = runs.count * B;
  launch({"evaluate_rows", size_t(count + 127) / 128, 128}, stream, evaluate_rows_kernel, logits,
         labels, counters, loss, right, B, N, source.rows, source.per_step, count);
}

}  // namespace focus::gpu
