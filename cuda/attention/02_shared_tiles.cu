// Rung 02, dense: the same kernels as 01, but a block computes a 64 × 64 tile of a product from
// slices of both factors in shared memory, and a thread 4 × 4 numbers of it in registers: a number
// from memory is used 64 times, one from shared memory 4 times.
//
// Any T, any D. Predicted at (16,16,2048,64): 8 shared loads for 16 multiply-adds, some 10 TFLOP/s,
// so 2 × 14 ms, plus 4 passes of 4.3 GB of scores through memory (softmax's thread a row reads
// them uncoalesced): 50 ms.
// Measured: 56 ms.
#include "cuda/attention/rungs.h"
#include "cuda/attention/scores_in_memory.cuh"

namespace focus::gpu {

namespace {

constexpr int tile = 64, slice = 16, threads = 256, padded = tile + 4;

// As dense_multiply_01. 16 × 16 threads, each with rows ty·4 … and columns tx·4 … of the tile.
__global__ void __launch_bounds__(threads)
    dense_multiply_02(Matrices a, Matrices b, Matrices c, int first, int rows, int columns,
                      int inner, float factor) {
  SharedMemory shared;
  float* a_slice = shared.array<float>(slice * padded);  // (slice,tile): a's slice transposed
  float* b_slice = shared.array<float>(slice * padded);  // (slice,tile)
  const int tiles_down = (rows + tile - 1) / tile, tiles_across = (columns + tile - 1) / tile;
  const int batch_head = first + int(blockIdx.x) / (tiles_down * tiles_across);
  const int place = int(blockIdx.x) % (tiles_down * tiles_across);
  const int i0 = place / tiles_across * tile, j0 = place % tiles_across * tile;
  const int t = int(threadIdx.x), tx = t % 16, ty = t / 16;
  const float *a_head = a.of(batch_head), *b_head = b.of(batch_head);
  float sum[4][4] = {};

  for (int x0 = 0; x0 < inner; x0 += slice) {
    //@ gap 09 slices
    for (int e = t; e < tile * slice; e += threads) {
      // Neighbouring threads read neighbouring addresses, whichever way the matrix lies.
      const bool a_by_row = a.col == 1, b_by_row = b.col == 1;
      const int ai = a_by_row ? e / slice : e % tile, ax = a_by_row ? e % slice : e / tile;
      const int bj = b_by_row ? e % tile : e / slice, bx = b_by_row ? e / tile : e % slice;
      const bool a_in = i0 + ai < rows && x0 + ax < inner;
      const bool b_in = j0 + bj < columns && x0 + bx < inner;
      a_slice[ax * padded + ai] = a_in ? a_head[(i0 + ai) * a.row + (x0 + ax) * a.col] : 0.f;
      b_slice[bx * padded + bj] = b_in ? b_head[(x0 + bx) * b.row + (j0 + bj) * b.col] : 0.f;
    }
    //@ end
    __syncthreads();  // the slices are complete
    for (int x = 0; x < slice; ++x) {
      const float4 u = load4(a_slice + x * padded + ty * 4),
                   v = load4(b_slice + x * padded + tx * 4);
      const float ui[4] = {u.x, u.y, u.z, u.w}, vj[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += ui[i] * vj[j];
    }
    __syncthreads();  // nobody reads the slices any more
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = i0 + ty * 4 + i, column = j0 + tx * 4 + j;
      if (row < rows && column < columns)
        c.of(batch_head)[row * c.row + column * c.col] = factor * sum[i][j];
    }
}

}  // namespace

void multiply_02(void* stream, int first, int batch_heads, Matrices a, Matrices b, Matrices c,
                 int rows, int columns, int inner, float factor) {
  const size_t tiles = size_t((rows + tile - 1) / tile) * size_t((columns + tile - 1) / tile);
  launch({"dense_multiply_02", tiles * size_t(batch_heads), threads,
          shared_bytes_for(slice * padded, slice * padded)},
         stream, dense_multiply_02, a, b, c, first, rows, columns, inner, factor);
}

namespace {
struct Multiply {
  void* stream;
  template <class... Arguments>
  void operator()(const Arguments&... arguments) const {
    multiply_02(stream, arguments...);
  }
};
}  // namespace

const Rung dense_02_forward{
    2,
    "dense: shared-memory tiles",
    Pass::forward,
    is_dense,
    true,
    supports_all,
    [](const Call& c) { return scores_workspace(c.q, 1); },
    [](Pattern, const Call& c) { dense_forward_in_memory(c, Multiply{c.stream}); }};

const Rung dense_02_backward{
    2,
    "dense: shared-memory tiles",
    Pass::backward,
    is_dense,
    true,
    supports_all,
    [](const Call& c) { return scores_workspace(c.q, 2); },
    [](Pattern, const Call& c) { dense_backward_in_memory(c, Multiply{c.stream}); }};

}  // namespace focus::gpu
