// Layer normalisation: a warp for each token. See src/ops/layer_norm.cpp for the formulas.
#include "cuda/device/launch.h"
#include "cuda/ops/ops.h"
#include "cuda/ops/warp.cuh"

namespace focus::gpu {

namespace {

__global__ void normalise(const float* x, float* y, float* rstd, int rows, int C, float epsilon) {
  wait_for_previous();
  const int row = int(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), lane = threadIdx.x % 32;
  if (row >= rows) return;
  const float* in = x + size_t(row) * size_t(C);
  float* out = y + size_t(row) * size_t(C);
  float sum = 0;
  for (int c = lane; c < C; c += 32) sum += in[c];
  const float mean = warp_sum(sum) / float(C);
  float squares = 0;
  for (int c = lane; c < C; c += 32) squares += (in[c] - mean) * (in[c] - mean);
  const float r = 1.f / sqrtf(warp_sum(squares) / float(C) + epsilon);
  for (int c = lane; c < C; c += 32) out[c] = (in[c] - mean) * r;
  if (lane == 0) rstd[row] = r;
}

__global__ void normalise_backward(const float* y, const float* dy, const float* rstd, float* dx,
                                   bool accumulate, int rows, int C) {
  wait_for_previous();
  const int row = int(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), lane = threadIdx.x % 32;
  if (row >= rows) return;
  const size_t at = size_t(row) * size_t(C);
  float sum = 0, dot = 0;
  for (int c = lane; c < C; c += 32) {
    sum += dy[at + size_t(c)];
    dot += dy[at + size_t(c)] * y[at + size_t(c)];
  }
  const float mean_dy = warp_sum(sum) / float(C), mean_dy_y = warp_sum(dot) / float(C);
  for (int c = lane; c < C; c += 32) {
    const size_t e = at + size_t(c);
    const float d = rstd[row] * (dy[e] - mean_dy - y[e] * mean_dy_y);
    dx[e] = accumulate ? dx[e] + d : d;
  }
}

}  // namespace

void layer_norm_forward(int rows, int C, double epsilon, const float* x, float* y, float* rstd,
                        void* stream) {
  launch(early({"normalise", size_t(rows + 7) / 8, 256}), stream, normalise, x, y, rstd, rows, C,
         float(epsilon));
}

void layer_norm_backward(int rows, int C, const float* y, const float* rstd, const float* dy,
                         float* dx, bool accumulate, void* stream) {
  launch(early({"normalise_backward", size_t(rows + 7) / 8, 256}), stream, normalise_backward, y,
         dy, rstd, dx, accumulate, rows, C);
}

}  // namespace focus::gpu
