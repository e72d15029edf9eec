// Rung 01, dense: what one would write first. One thread computes one number of a matrix product,
// reading all it needs from memory; the T × T scores go to memory and back between the kernels.
//
// Any T, any D. Predicted at (16,16,2048,64) on an H200: each multiply-add loads two floats through
// the first-level cache, whose 128 bytes a cycle feed 16 of 128 lanes: some 3 TFLOP/s at best,
// less for the products that walk a column: 100 ms or more.
// Measured: 363 ms. Neighbouring threads read keys 256 bytes apart, 32 cache lines an instruction.
#include "cuda/attention/rungs.h"
#include "cuda/attention/scores_in_memory.cuh"

namespace focus::gpu {

namespace {

// c = factor · a b, (rows,inner) times (inner,columns). A thread for each (i,j).
__global__ void dense_multiply_01(Matrices a, Matrices b, Matrices c, int first, int rows,
                                  int columns, int inner, float factor) {
  const size_t per_head = size_t(rows) * size_t(columns);
  int unit = 0;            // the thread's head
  ptrdiff_t i = 0, j = 0;  // its place in that head's product
  //@ begin 08 threads-place points=5
  //@ plan which number of which head is this thread's? blocks are dealt out head by head, numbers
  // row
  //@ plan by row; the last block of a head may have threads to spare: those return
  //@ hint 1 with 3 blocks for each head, which head and which of its blocks is block 7?
  //@ hint 2 README, "Thread, block, grid"; the grid that is launched is further down in the same
  // file
  //@ hint 3 blocks of a head = per_head over blockDim.x, rounded up; the head = first + block /
  // that;
  //@ hint 3 number = block % that * blockDim.x + thread; row = number / columns, column = the rest
  //@ notice neighbouring threads get neighbouring columns: what that does to loads is the lesson
  const size_t blocks_per_head = (per_head + blockDim.x - 1) / blockDim.x;
  //@ mutant place-warps: blocks lie 32 numbers apart instead of a block's number of threads
  //~ const size_t at = blockIdx.x % blocks_per_head * 32 + threadIdx.x;
  const size_t at = blockIdx.x % blocks_per_head * blockDim.x + threadIdx.x;
  if (at >= per_head) return;
  //@ mutant place-first-head: every block works on the first head
  //~ unit = first;
  //@ mutant place-part: the heads of every part are counted from 0
  //~ unit = int(blockIdx.x / blocks_per_head);
  unit = first + int(blockIdx.x / blocks_per_head);
  i = ptrdiff_t(at) / columns, j = ptrdiff_t(at) % columns;
  //@ end
  //@ begin 08 product points=4
  //@ plan sum a[i,x] b[x,j] over x and write factor times the sum to c[i,j]
  //@ hint 1 where does row i of a begin, and how far apart are its numbers?
  //@ hint 2 the comment at struct Matrices in scores_in_memory.cuh
  //@ hint 3 a_i = a.of(unit) + i·a.row, b_j = b.of(unit) + j·b.col; sum over x of
  //@ hint 3 a_i[x·a.col] · b_j[x·b.row]; c.of(unit)[i·c.row + j·c.col] = factor · sum
  //@ notice the transpose costs nothing but the order in which memory is visited, and that is a lot
  const float *a_i = a.of(unit) + i * a.row, *b_j = b.of(unit) + j * b.col;
  float sum = 0;
  //@ mutant product-short: the last term of every sum is left out
  //~ for (int x = 0; x + 1 < inner; ++x) sum += a_i[x * a.col] * b_j[x * b.row];
  for (int x = 0; x < inner; ++x) sum += a_i[x * a.col] * b_j[x * b.row];
  //@ mutant product-no-factor: the factor is left out
  //~ c.of(unit)[i * c.row + j * c.col] = sum;
  //@ mutant product-adds: the result is added to what was in memory
  //~ c.of(unit)[i * c.row + j * c.col] += factor * sum;
  c.of(unit)[i * c.row + j * c.col] = factor * sum;
  //@ end
}

struct Multiply {
  void* stream;
  void operator()(int first, int units, Matrices a, Matrices b, Matrices c, int rows, int columns,
                  int inner, float factor) const {
    constexpr int threads = 256;
    size_t blocks = 0;
    //@ begin 08 grid points=3
    //@ plan how many blocks of 256 threads: one thread for each of rows · columns numbers, each
    // head
    //@ plan beginning with a block of its own
    //@ hint 1 a head of 257 numbers needs how many blocks?
    //@ hint 2 the kernel above says how it divides the blocks among the heads
    //@ hint 3 (rows · columns + threads − 1) / threads blocks for a head, times the number of heads
    //@ notice both sides round up, and must agree: nothing checks it but the results
    const size_t numbers = size_t(rows) * size_t(columns);
    //@ mutant grid-down: the numbers beyond the last whole block have no thread
    //~ const size_t of_a_head = numbers / threads;
    const size_t of_a_head = (numbers + threads - 1) / threads;
    //@ mutant grid-one-head: there are blocks for one head only
    //~ blocks = of_a_head;
    blocks = of_a_head * size_t(units);
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
