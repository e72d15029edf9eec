// Rung 01, dense: the first thing one would write. One thread computes one number of a matrix
// product and reads its inputs from memory; the T × T scores go to memory and back between kernels.
//
// Any T, any D. Predicted at (16,16,2048,64) on an H200: 100 ms or more. Each multiply-add loads
// two floats through the first-level cache, whose 128 bytes a cycle feed 16 of 128 lanes: an eighth
// of 66.9 TFLOP/s, 33 ms, if all of a line is used; the product that walks a column takes more.
// Measured: 363 ms. Neighbouring threads read keys 256 bytes apart, 32 cache lines an instruction.
#include "cuda/attention/rungs.h"
#include "cuda/attention/scores_in_memory.cuh"

namespace focus::gpu {

namespace {

// c = factor · a b, (rows,inner) times (inner,columns). A thread for each (i,j).
__global__ void dense_multiply_01(Matrices a, Matrices b, Matrices c, int first, int rows,
                                  int columns, int inner, float factor) {
  const size_t per_head = size_t(rows) * size_t(columns);
  int batch_head = 0;      // the thread's head
  ptrdiff_t i = 0, j = 0;  // its place in that head's product
  //@ gap 08 threads-place
  const size_t blocks_per_head = (per_head + blockDim.x - 1) / blockDim.x;
  const size_t at = blockIdx.x % blocks_per_head * blockDim.x + threadIdx.x;
  if (at >= per_head) return;
  batch_head = first + int(blockIdx.x / blocks_per_head);
  i = ptrdiff_t(at) / columns, j = ptrdiff_t(at) % columns;
  //@ end
  //@ gap 08 product
  const float *a_i = a.of(batch_head) + i * a.row, *b_j = b.of(batch_head) + j * b.col;
  float sum = 0;
  for (int x = 0; x < inner; ++x) sum += a_i[x * a.col] * b_j[x * b.row];
  c.of(batch_head)[i * c.row + j * c.col] = factor * sum;
  //@ end
}

struct Multiply {
  void* stream;
  void operator()(int first, int batch_heads, Matrices a, Matrices b, Matrices c, int rows,
                  int columns, int inner, float factor) const {
    constexpr int threads = 256;
    size_t blocks = 0;
    //@ gap 08 grid
    const size_t numbers = size_t(rows) * size_t(columns);
    const size_t of_a_head = (numbers + threads - 1) / threads;
    blocks = of_a_head * size_t(batch_heads);
    //@ end
    launch({"dense_multiply_01", blocks, threads}, stream, dense_multiply_01, a, b, c, first, rows,
           columns, inner, factor);
  }
};

}  // namespace

const Rung dense_01_forward{
    1,
    "dense: three naive kernels",
    Pass::forward,
    is_dense,
    true,
    supports_all,
    [](const Call& c) { return scores_workspace(c.q, 1); },
    [](Pattern, const Call& c) { dense_forward_in_memory(c, Multiply{c.stream}); }};

const Rung dense_01_backward{
    1,
    "dense: naive kernels",
    Pass::backward,
    is_dense,
    true,
    supports_all,
    [](const Call& c) { return scores_workspace(c.q, 2); },
    [](Pattern, const Call& c) { dense_backward_in_memory(c, Multiply{c.stream}); }};

}  // namespace focus::gpu
