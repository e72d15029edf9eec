// y = x Wᵀ + b and its gradients, in tiles of 64 × 64 numbers: both factors of a tile's product go
// through shared memory, 64 deep at a time, and a thread sums 8 × 4 numbers in registers
// (cuda/attention/tile.cuh). Where that leaves tiles enough for the whole GPU, y and dx have tiles
// of 128 × 64, and a thread 8 × 8 numbers: 16 reads of shared memory for 256 multiply-adds, not 12
// for 128. A number is the same sum in either. Measured on an H200, in the step of a causal model
// (8192 rows of 128 to 512 numbers): backward 5.0 ms, 6.6 before, with longer chunks of dW;
// forward 2.6 ms, 2.2 before: there the compiler keeps too little in registers.
//
// dW and db are sums over all rows of a run. A block sums a chunk of them; a second kernel adds the
// chunks in order. So the bits do not depend on how many blocks there are or when they run.
#include <algorithm>
#include <type_traits>

#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"
#include "cuda/ops/ops.h"

namespace focus::gpu {

namespace {

constexpr int side = 64, threads = 128;  // side: columns and depth of a tile
constexpr int pitch = side + 4, tile_floats = side * pitch;

// The threads of a tile of ROWS rows, and how many rows and columns each has.
template <int ROWS>
struct Tile {
  static constexpr int TX = ROWS == 128 ? 8 : 16, TY = threads / TX, R = ROWS / TY, C = side / TX;
  static constexpr size_t shared_size = shared_bytes_for(ROWS * pitch, tile_floats);
};

__host__ __device__ constexpr int tiles_for(int n, int size) {
  return (n + size - 1) / size;
}

// Sizes of one call; M rows in each run.
struct Sizes {
  int M, in, out, runs;
  int chunk;      // rows of a part of dW
  size_t stride;  // between the runs' parameters

  Sizes(const Runs& r, const LinearSize& size)
      : M(size.rows), in(size.in), out(size.out), runs(r.count), stride(r.stride) {
    // Every chunk writes a part as large as W: of a large W, fewer, as long as there are 256
    // blocks.
    const int64_t rows = int64_t{M} * tiles_for(out, side) * tiles_for(in, side) / 256;
    chunk = int(std::clamp<int64_t>((rows + 127) / 128 * 128, 128, 1024));
  }
  int row_tiles(int rows) const { return tiles_for(M, rows) * runs; }
  int chunks() const { return tiles_for(M, chunk) * runs; }
  size_t floats() const { return size_t(out) * size_t(in) + size_t(out); }  // of W and b
};

// A tile at (first_row, first_column) of a (rows,columns) matrix; 0 beyond its edges.
template <int ROWS>
__device__ __forceinline__ void load_tile(float* to, const float* from, int rows, int columns,
                                          int first_row, int first_column) {
  const bool vectors = columns % 4 == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0;
#pragma unroll 8  // loads at once: more would cost registers
  for (int e = int(threadIdx.x); e < ROWS * side / 4; e += threads) {
    const int row = e / (side / 4), column = e % (side / 4) * 4;
    const int r = first_row + row, c = first_column + column;
    float4 x = make_float4(0, 0, 0, 0);
    if (r < rows && c < columns) {
      const float* at = from + size_t(r) * size_t(columns) + size_t(c);
      if (vectors) {
        x = load4(at);
      } else {
        x.x = at[0];
        if (c + 1 < columns) x.y = at[1];
        if (c + 2 < columns) x.z = at[2];
        if (c + 3 < columns) x.w = at[3];
      }
    }
    store4(to + row * pitch + column, x);
  }
}

template <int ROWS>
__global__ void __launch_bounds__(threads, 3)
    linear_forward_kernel(Sizes s, const float* x, const float* w, const float* bias, float* y) {
  constexpr int TX = Tile<ROWS>::TX, TY = Tile<ROWS>::TY, R = Tile<ROWS>::R, C = Tile<ROWS>::C;
  SharedMemory shared;
  float *a = shared.array<float>(ROWS * pitch), *b = shared.array<float>(tile_floats);
  const ThreadPosition<TX> at;
  const int columns = tiles_for(s.out, side), rows = tiles_for(s.M, ROWS);
  const int o0 = int(blockIdx.x) % columns * side;
  const int m0 = int(blockIdx.x) / columns % rows * ROWS, run = int(blockIdx.x) / columns / rows;
  x += size_t(run) * size_t(s.M) * size_t(s.in);
  y += size_t(run) * size_t(s.M) * size_t(s.out);
  w += size_t(run) * s.stride, bias += size_t(run) * s.stride;
  float sum[R][C] = {};
  for (int k = 0; k < s.in; k += side) {
    load_tile<ROWS>(a, x, s.M, s.in, m0, k);
    load_tile<side>(b, w, s.out, s.in, o0, k);
    __syncthreads();
    add_abt<side>(sum, a + at.y * pitch, TY * pitch, b + at.x * pitch, TX * pitch);
    __syncthreads();
  }
#pragma unroll
  for (int j = 0; j < C; ++j) {
    const int o = o0 + at.x + TX * j;
    if (o >= s.out) continue;
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int m = m0 + at.y + TY * i;
      if (m < s.M) y[size_t(m) * size_t(s.out) + size_t(o)] = sum[i][j] + bias[o];
    }
  }
}

// One tile of dx (M,in) = dy (M,out) · W (out,in).
template <int ROWS>
__device__ void input_gradient(const Sizes& s, int block, const float* dy, const float* w,
                               float* dx, bool accumulate, float* a, float* b) {
  constexpr int TX = Tile<ROWS>::TX, TY = Tile<ROWS>::TY, R = Tile<ROWS>::R, C = Tile<ROWS>::C;
  const ThreadPosition<TX> at;
  const int columns = tiles_for(s.in, side), rows = tiles_for(s.M, ROWS);
  const int i0 = block % columns * side, m0 = block / columns % rows * ROWS;
  const int run = block / columns / rows;
  dy += size_t(run) * size_t(s.M) * size_t(s.out);
  dx += size_t(run) * size_t(s.M) * size_t(s.in);
  w += size_t(run) * s.stride;
  float sum[R][C] = {};
  for (int k = 0; k < s.out; k += side) {
    load_tile<ROWS>(a, dy, s.M, s.out, m0, k);
    load_tile<side>(b, w, s.out, s.in, k, i0);
    __syncthreads();
    add_ab<TX, side>(sum, a + at.y * pitch, TY * pitch, b + at.x * vector_of<C>, pitch);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) {
      const int m = m0 + at.y + TY * i, c = i0 + column<TX, C>(at.x, j);
      if (m >= s.M || c >= s.in) continue;
      float& to = dx[size_t(m) * size_t(s.in) + size_t(c)];
      to = accumulate ? to + sum[i][j] : sum[i][j];
    }
}

// One chunk's part of a tile of dW (out,in) = dyᵀ · x, and, beside the first column of tiles, of
// db. parts: (R,chunks, out·in + out).
__device__ void weight_gradient(const Sizes& s, int block, const float* dy, const float* x,
                                float* parts, float* a, float* b) {
  constexpr int TX = Tile<side>::TX, TY = Tile<side>::TY, R = Tile<side>::R, C = Tile<side>::C;
  const ThreadPosition<TX> at;
  const int columns = tiles_for(s.in, side), rows = tiles_for(s.out, side);
  const int chunks = tiles_for(s.M, s.chunk);
  const int i0 = block % columns * side, o0 = block / columns % rows * side;
  const int part = block / columns / rows, run = part / chunks, m0 = part % chunks * s.chunk;
  dy += size_t(run) * size_t(s.M) * size_t(s.out);
  x += size_t(run) * size_t(s.M) * size_t(s.in);
  parts += size_t(part) * (size_t(s.out) * size_t(s.in) + size_t(s.out));
  const int end = min(m0 + s.chunk, s.M);
  float sum[R][C] = {}, bias = 0;
  for (int m = m0; m < end; m += side) {
    load_tile<side>(a, dy, end, s.out, m, o0);
    load_tile<side>(b, x, end, s.in, m, i0);
    __syncthreads();
    add_atb<TX, TY, side>(sum, a + at.y * 4, pitch, b + at.x * vector_of<C>, pitch);
    if (i0 == 0 && int(threadIdx.x) < side)
      for (int k = 0; k < side; ++k) bias += a[k * pitch + int(threadIdx.x)];
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) {
      const int o = o0 + i / 4 * (4 * TY) + at.y * 4 + i % 4, c = i0 + column<TX, C>(at.x, j);
      if (o < s.out && c < s.in) parts[size_t(o) * size_t(s.in) + size_t(c)] = sum[i][j];
    }
  const int o = o0 + int(threadIdx.x);
  if (i0 == 0 && int(threadIdx.x) < side && o < s.out)
    parts[size_t(s.out) * size_t(s.in) + size_t(o)] = bias;
}

// The blocks of dW come first: they take longest.
template <int ROWS>
__global__ void __launch_bounds__(threads, ROWS == 128 ? 3 : 4)
    linear_backward_kernel(Sizes s, const float* x, const float* w, const float* dy, float* dx,
                           bool accumulate, float* parts, int weight_blocks) {
  SharedMemory shared;
  float *a = shared.array<float>(ROWS * pitch), *b = shared.array<float>(tile_floats);
  if (int(blockIdx.x) < weight_blocks)
    weight_gradient(s, int(blockIdx.x), dy, x, parts, a, b);
  else
    input_gradient<ROWS>(s, int(blockIdx.x) - weight_blocks, dy, w, dx, accumulate, a, b);
}

// dw += its parts, db likewise, in the chunks' order. A thread a number.
__global__ void linear_sum(Sizes s, const float* parts, float* dw, float* db) {
  const size_t weights = size_t(s.out) * size_t(s.in), size = weights + size_t(s.out);
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x, run = i / size, e = i % size;
  if (run >= size_t(s.runs)) return;
  const int chunks = tiles_for(s.M, s.chunk);
  const float* part = parts + run * size_t(chunks) * size + e;
  float sum = 0;
#pragma unroll 8
  for (int k = 0; k < chunks; ++k) sum += part[size_t(k) * size];
  (e < weights ? dw + e : db + (e - weights))[run * s.stride] += sum;
}

// Calls f(rows): how many rows the tiles of a result of so many columns have.
template <class F>
void for_rows(const Sizes& s, int columns, const F& f) {
  const int tiles = s.row_tiles(128) * tiles_for(columns, side);
  const bool large = s.M >= 128 && tiles >= 2 * device().multiprocessors;
  large ? f(std::integral_constant<int, 128>{}) : f(std::integral_constant<int, side>{});
}

}  // namespace

void linear_forward(const Runs& runs, const LinearSize& size, const float* x,
                    const LinearLayer& layer, float* y, void* stream) {
  const Sizes s(runs, size);
  for_rows(s, s.out, [&](auto rows) {
    constexpr int ROWS = decltype(rows)::value;
    launch({"linear_forward", size_t(s.row_tiles(ROWS) * tiles_for(s.out, side)), threads,
            Tile<ROWS>::shared_size},
           stream, linear_forward_kernel<ROWS>, s, x, layer.weight, layer.bias, y);
  });
}

size_t linear_part_floats(const Runs& runs, const LinearSize& size) {
  const Sizes s(runs, size);
  return size_t(s.chunks()) * s.floats();
}

void linear_backward(const Runs& runs, const LinearSize& size, const float* x, const float* weight,
                     const float* dy, float* dx, bool accumulate, const LinearGradient& to,
                     float* parts, void* stream) {
  const Sizes s(runs, size);
  const int weight_blocks = s.chunks() * tiles_for(s.out, side) * tiles_for(s.in, side);
  for_rows(s, s.in, [&](auto rows) {
    constexpr int ROWS = decltype(rows)::value;
    const int input_blocks = s.row_tiles(ROWS) * tiles_for(s.in, side);
    launch(
        {"linear_backward", size_t(weight_blocks + input_blocks), threads, Tile<ROWS>::shared_size},
        stream, linear_backward_kernel<ROWS>, s, x, weight, dy, dx, accumulate, parts,
        weight_blocks);
  });
  launch({"linear_sum", (s.floats() * size_t(s.runs) + 127) / 128, 128}, stream, linear_sum, s,
         parts, to.weight, to.bias);
}

}  // namespace focus::gpu
