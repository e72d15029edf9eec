// The forward half of a transformer block in two kernels, beside attention itself:
//
//   q, k, v = W norm(x)
//   middle = x + dropout(W_o attended);  y = middle + dropout(W_2 activation(dropout(W_1
//   norm(middle))))
//
// and, between two blocks, the second with the next block's first behind it. A tile of 64 rows
// stays in registers and shared memory from one operation to the next, and later weights arrive
// while products run. Dropout's bits depend on nothing else, so a kernel of their own draws them
// earlier, beside others. Operation by operation (linear.cu and others) the same takes eleven
// kernels, each of which reads and writes all rows.
//
// A block of 128 threads takes 128 rows, a thread 8 × 8 numbers of a product: 16 loads of 16 bytes
// feed 256 multiply-adds, so that shared memory keeps up. (With 4 × 4 numbers it had to deliver all
// it can.) A thread's rows are y, y + 16, …, its columns x, x + 8, …: a row lies in 8 lanes of one
// warp, which waits for the others only where a weight has arrived or may be overwritten. Weights
// arrive in turns in two tiles, each while the product before it runs.
//
// Measured at 15000 rows on an H100 with tiles of 64 rows and 4 × 4 numbers a thread, where
// multiply-adds alone would take 12 µs: 33 µs from one attention to the next, 43 in two kernels.
#include "cuda/device/launch.h"
#include "cuda/fast/blocks/block.cuh"
#include "cuda/fast/blocks/row_tile.cuh"
#include "cuda/ops/activation.cuh"
#include "cuda/ops/philox.cuh"

namespace focus::gpu {

namespace {

using rows::copy_bias;
using rows::pitch;
using rows::side;

constexpr int TX = 8, TY = 16, threads = TX * TY, R = 8, C = side / TX, height = TY * R;
constexpr int rows_floats = height * pitch;
using Fragment = float[R][C];

// The rows of a block, of which each run has a whole number of tiles.
struct Rows {
  int run, first, M;  // its first row and all rows, in the run
  size_t row;         // its first row among those of all runs
  ThreadPosition<TX> at;
  size_t own_row;  // the thread's first row
  int left;        // rows from there on

  __device__ explicit Rows(int rows_of_run) : M(rows_of_run) {
    const int tiles = (M + height - 1) / height;
    run = int(blockIdx.x) / tiles, first = int(blockIdx.x) % tiles * height;
    row = size_t(run) * size_t(M) + size_t(first);
    own_row = row + size_t(at.y), left = M - first - at.y;
  }
  // The thread's row i: in the tile, whether it exists, among all, and its first number.
  __device__ int y(int i) const { return at.y + TY * i; }
  __device__ bool has(int i) const { return TY * i < left; }
  __device__ size_t row_of(int i) const { return own_row + size_t(TY * i); }
  __device__ size_t offset(int i) const { return row_of(i) * side + size_t(at.x); }
};

// The whole row's sum, of each thread's numbers, as if it had lain in 16 lanes: by fours, then
// those of eight neighbouring lanes, then both halves.
__device__ __forceinline__ float row_sum(const float (&v)[C]) {
  const float low = v[0] + v[2] + v[4] + v[6], high = v[1] + v[3] + v[5] + v[7];
  return ThreadPosition<TX>::reduce_row(low, Sum{}) + ThreadPosition<TX>::reduce_row(high, Sum{});
}

// Normalises the thread's part of a row; all 8 lanes of a row call it together.
__device__ __forceinline__ float2 normalise(float (&v)[C], float epsilon) {
  const float mean = row_sum(v) / float(side);
  float squares[2] = {};
#pragma unroll
  for (int j = 0; j < C; ++j) squares[j % 2] += (v[j] - mean) * (v[j] - mean);
  const float sum = ThreadPosition<TX>::reduce_row(squares[0], Sum{}) +
                    ThreadPosition<TX>::reduce_row(squares[1], Sum{});
  const float rstd = 1.f / sqrtf(sum / float(side) + epsilon);
#pragma unroll
  for (int j = 0; j < C; ++j) v[j] = (v[j] - mean) * rstd;
  return make_float2(mean, rstd);
}

// tile := the warp's rows x, normalised. stats: may be nullptr.
__device__ __forceinline__ void store_normalised(float* tile, const Rows& t, const Fragment& x,
                                                 float epsilon, float2* stats) {
#pragma unroll
  for (int i = 0; i < R; ++i) {
    float v[C];
#pragma unroll
    for (int j = 0; j < C; ++j) v[j] = x[i][j];
    const float2 s = normalise(v, epsilon);
    if (t.at.x == 0 && t.has(i) && stats) stats[t.row_of(i)] = s;
#pragma unroll
    for (int j = 0; j < C; ++j) tile[t.y(i) * pitch + t.at.x + TX * j] = v[j];
  }
  __syncwarp();  // the rows are there for the warp
}

__device__ __forceinline__ void copy_weight(float* to, const float* from) {
  rows::copy_weight<threads>(to, from);
}

// to := the thread's numbers of rows in device memory.
__device__ __forceinline__ void load(Fragment& to, const Rows& t, const float* from) {
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) to[i][j] = t.has(i) ? from[t.offset(i) + size_t(TX * j)] : 0.f;
}
// The same back; to: may be nullptr.
__device__ __forceinline__ void store(float* to, const Rows& t, const Fragment& from) {
  if (!to) return;
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j)
      if (t.has(i)) to[t.offset(i) + size_t(TX * j)] = from[i][j];
}

// acc = A Wᵀ + b
__device__ __forceinline__ void apply(Fragment& acc, const Rows& t, const float* a, const float* w,
                                      const float* bias) {
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) acc[i][j] = 0;
  add_abt<side>(acc, a + t.at.y * pitch, TY * pitch, w + t.at.x * pitch, TX * pitch);
#pragma unroll
  for (int j = 0; j < C; ++j) {
    const float b = (bias + t.at.x)[TX * j];
#pragma unroll
    for (int i = 0; i < R; ++i) acc[i][j] += b;
  }
}

// All warps are done with the weight before, and the next one, the last that was fetched, is there.
__device__ __forceinline__ void wait_for_weight() {
  __pipeline_wait_prior(0);
  __syncthreads();
}

// q, k, v := the layers of the warp's rows n. W_q is on its way to weights[0].
__device__ __forceinline__ void project(const NormQkv& a, const Rows& t, const float* n,
                                        float* const (&weights)[2], const float* biases,
                                        size_t parameters) {
#pragma unroll
  for (int layer = 0; layer < 3; ++layer) {
    wait_for_weight();
    if (layer < 2) copy_weight(weights[1 - layer % 2], a.layers[layer + 1].weight + parameters);
    __pipeline_commit();
    Fragment acc;
    apply(acc, t, n, weights[layer % 2], biases + layer * side);
    store(a.y[layer], t, acc);
  }
}

__device__ __forceinline__ void copy_biases(float* to, const FusedLayer (&layers)[3],
                                            size_t parameters) {
#pragma unroll
  for (int layer = 0; layer < 3; ++layer)
    copy_bias(to + layer * side, layers[layer].bias + parameters);
}

__global__ void __launch_bounds__(threads, 2) norm_qkv_kernel(NormQkv a) {
  SharedMemory shared;
  float* n = shared.array<float>(rows_floats);
  float* const weights[2] = {shared.array<float>(rows::tile_floats),
                             shared.array<float>(rows::tile_floats)};
  float* biases = shared.array<float>(3 * side);
  const Rows t(a.M);
  const size_t parameters = size_t(t.run) * a.stride;
  copy_weight(weights[0], a.layers[0].weight + parameters);
  copy_biases(biases, a.layers, parameters);
  __pipeline_commit();
  wait_for_previous();
  Fragment x;
  load(x, t, a.x);
  store_normalised(n, t, x, a.epsilon, a.stats);
  project(a, t, n, weights, biases, parameters);
}

// A row's bits of three uses of dropout (rows::copy_masks), each warp its own rows'.
constexpr int masks_floats = height * 2;
__device__ __forceinline__ void copy_masks(float* masks, const Rows& t,
                                           unsigned char* const (&kept)[3]) {
  const int lane = int(threadIdx.x) % 32;
  const int y = int(threadIdx.x) / 32 * (32 / TX) + lane % (32 / TX) + lane / (32 / TX) * TY;
  if (t.first + y >= t.M) return;
#pragma unroll
  for (int m = 0; m < 3; ++m)
    __pipeline_memcpy_async(masks + m * masks_floats + y * 2, kept[m] + (t.row + size_t(y)) * 8, 8);
}

template <Activation activation, bool projects>
__global__ void __launch_bounds__(threads, 2) output_and_mlp_kernel(OutputAndMlp a, NormQkv next) {
  SharedMemory shared;
  float* tile = shared.array<float>(rows_floats);
  float* const weights[2] = {shared.array<float>(rows::tile_floats),
                             shared.array<float>(rows::tile_floats)};
  float *biases = shared.array<float>(3 * side), *masks = shared.array<float>(3 * masks_floats);
  float* next_biases = projects ? shared.array<float>(3 * side) : nullptr;
  const Rows t(a.M);
  const size_t parameters = size_t(t.run) * a.stride;
  const auto fetch = [&](int to, const FusedLayer& layer) {
    copy_weight(weights[to], layer.weight + parameters);
    __pipeline_commit();
  };
  copy_biases(biases, a.layers, parameters);
  if constexpr (projects) copy_biases(next_biases, next.layers, parameters);
  const bool drops = a.kept[0];
  if (drops) copy_masks(masks, t, a.kept);
  fetch(0, a.layers[0]);
  wait_for_previous();
  rows::copy_tile<pitch, threads, height>(tile, a.attended + t.row * side, t.M - t.first);
  __pipeline_commit();
  Fragment acc, middle;
  load(middle, t, a.x);

  // acc := a layer's output as dropout leaves it.
  const auto output = [&](int layer) {
    apply(acc, t, tile, weights[layer % 2], biases + layer * side);
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const uint64_t kept =
          drops ? reinterpret_cast<const uint64_t*>(masks + layer * masks_floats)[t.y(i)] >> t.at.x
                : ~uint64_t{0};
#pragma unroll
      for (int j = 0; j < C; ++j) acc[i][j] *= kept >> (TX * j) & 1 ? a.scale : 0.f;
    }
  };

  wait_for_weight();  // and the attended rows, biases and bits are there
  fetch(1, a.layers[1]);
  output(0);
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) middle[i][j] += acc[i][j];
  __syncwarp();  // the warp does not read its rows any more
  store_normalised(tile, t, middle, a.epsilon, a.stats);
  store(a.middle, t, middle);

  wait_for_weight();
  fetch(0, a.layers[2]);
  output(1);
  __syncwarp();  // as above
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j)
      tile[t.y(i) * pitch + t.at.x + TX * j] = activation_value(activation, acc[i][j]);
  store(a.hidden, t, acc);

  wait_for_weight();
  if constexpr (projects) fetch(1, next.layers[0]);
  output(2);
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) acc[i][j] = middle[i][j] + acc[i][j];
  store(a.y, t, acc);
  if constexpr (projects) {
    __syncwarp();  // as above
    store_normalised(tile, t, acc, next.epsilon, next.stats);
    float* const turned[2] = {weights[1], weights[0]};
    project(next, t, tile, turned, next_biases, parameters);
  }
}

// The bits of the three uses of dropout, a thread for eight of one.
__global__ void draw_kept_kernel(OutputAndMlp a, size_t bytes) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x, byte = i % bytes;
  const size_t of_run = size_t(a.M) * 8;
#pragma unroll
  for (int m = 0; m < 3; ++m)
    if (i / bytes == size_t(m))
      a.kept[m][byte] =
          static_cast<unsigned char>(kept_bits(a.draws[m], int(byte / of_run), byte % of_run));
}

size_t blocks_for(int M, int runs) {
  return size_t((M + height - 1) / height) * size_t(runs);
}

}  // namespace

void draw_kept(const OutputAndMlp& a, int runs, void* stream) {
  const size_t bytes = size_t(runs) * size_t(a.M) * 8;
  launch({"draw_kept", (3 * bytes + 255) / 256, 256}, stream, draw_kept_kernel, a, bytes);
}

void norm_qkv_forward(const NormQkv& a, int runs, void* stream) {
  if (a.precision != Precision::fp32) return tensor_cores::norm_qkv_forward(a, runs, stream);
  launch(early({"norm_qkv", blocks_for(a.M, runs), threads,
                shared_bytes_for(rows_floats, rows::tile_floats, rows::tile_floats, 3 * side)}),
         stream, norm_qkv_kernel, a);
}

void output_and_mlp_forward(const OutputAndMlp& a, const NormQkv* next, int runs, void* stream) {
  if (a.precision != Precision::fp32)
    return tensor_cores::output_and_mlp_forward(a, next, runs, stream);
  const size_t shared = shared_bytes_for(rows_floats, rows::tile_floats, rows::tile_floats,
                                         3 * side, 3 * masks_floats);
  const size_t more = shared_bytes_for(3 * side);
  for_activation(a.activation, [&](auto chosen) {
    constexpr Activation activation = decltype(chosen)::value;
    if (next)
      launch(early({"output_and_mlp_and_norm_qkv", blocks_for(a.M, runs), threads, shared + more}),
             stream, output_and_mlp_kernel<activation, true>, a, *next);
    else
      launch(early({"output_and_mlp", blocks_for(a.M, runs), threads, shared}), stream,
             output_and_mlp_kernel<activation, false>, a, NormQkv{});
  });
}

}  // namespace focus::gpu
