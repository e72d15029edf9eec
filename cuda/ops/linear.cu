// y = x Wᵀ + b and its gradients (x, y and theirs start at multiples of 16 bytes), in tiles of 128
// × 128 numbers, or of 64 × 64 where larger ones would leave a part of the GPU without work. Both
// factors of a tile's product go through shared memory, 8 deep at a time, inner number by inner
// number, and a thread sums 8 × 8 (8 × 4) numbers in registers: 4 reads of 16 bytes for 64
// multiply-adds. While it multiplies, its part of the next 8 is on the way to its registers, and
// goes to the other half of the shared memory after that. A number is the same sum in tiles of
// either size.
//
// dW and db are sums over all rows of a run. A block sums a chunk of them; another kernel adds the
// chunks in order. So the bits do not depend on how many blocks there are or when they run. So does
// dx where W has many outputs for few rows, as a vocabulary's.
//
// Measured on an H200 in the step of a causal model (8192 rows of 128 to 512 numbers, a vocabulary
// of 4096), each kernel alone: forward 1.76 ms (predicted: 1.1), backward 3.66 (predicted: 2.5).
// The multiply-adds would take 0.7 and 1.4. Tiles of 64 × 64 numbers, 64 deep, without the next
// ones on the way, took 2.2 and 6.6.
#include <algorithm>
#include <type_traits>

#include "cuda/attention/tile.cuh"
#include "cuda/device/launch.h"
#include "cuda/ops/ops.h"

namespace focus::gpu {

namespace {

constexpr int small = 64, large = 128;
constexpr int depth = 8;  // inner numbers at a time

template <int SIDE>
struct Tile {
  static constexpr int R = 8, C = SIDE == large ? 8 : 4;  // a thread's rows and columns
  static constexpr int TX = SIDE / C, TY = SIDE / R, threads = TX * TY;
  static constexpr int pitch = SIDE + 4, floats = depth * pitch;
  static constexpr size_t shared_size = shared_bytes_for(4 * floats);
};
template <int SIDE>
using Sum2 = float[Tile<SIDE>::R][Tile<SIDE>::C];

__host__ __device__ constexpr int tiles_for(int n, int size) {
  return (n + size - 1) / size;
}

// Sizes of one call; M rows in each run.
struct Sizes {
  int M, in, out, runs;
  bool vectors;       // every row starts at a multiple of 16 bytes, if the first does
  int weight_side;    // of the tiles of dW
  int chunk;          // rows of a part of dW
  int outputs_chunk;  // outputs of a part of dx
  size_t stride;      // between the runs' parameters

  Sizes(const Runs& r, const LinearSize& size)
      : M(size.rows), in(size.in), out(size.out), runs(r.count), stride(r.stride) {
    vectors = in % 4 == 0 && out % 4 == 0 && stride % 4 == 0;
    weight_side = vectors && in >= large && out >= large ? large : small;
    // Every chunk writes a part as large as W: of a large W, fewer, as long as there are 256
    // blocks.
    const int64_t rows =
        int64_t{M} * tiles_for(out, weight_side) * tiles_for(in, weight_side) / 256;
    chunk = int(std::clamp<int64_t>((rows + 127) / 128 * 128, 128, 1024));
    const bool few_rows = tiles_for(M, small) * tiles_for(in, small) < 128;
    outputs_chunk = few_rows && out >= 1024 ? 512 : out;
  }
  int tiles(int columns, int side) const { return tiles_for(M, side) * tiles_for(columns, side); }
  __host__ __device__ int chunks() const { return tiles_for(M, chunk); }  // of a run
  __host__ __device__ int input_parts() const { return tiles_for(out, outputs_chunk); }
  size_t sums_of_weights() const { return (size_t(out) * size_t(in) + size_t(out)) * size_t(runs); }
  size_t weight_floats() const { return sums_of_weights() * size_t(chunks()); }
  size_t input_floats() const { return size_t(runs) * size_t(M) * size_t(in); }
};

// A factor of a product in device memory: `count` rows (or columns) of `inner` numbers, those of a
// row neighbours, or those of an inner number.
struct Factor {
  const float* from;
  int count, inner, stride;
};

// A thread's four numbers of SIDE rows of a factor, `depth` deep, on the way to shared memory; 0
// beyond the factor's edges.
template <int SIDE, bool ROWS_LIE_TOGETHER>
class Part {
 public:
  static_assert(SIDE * depth == 4 * Tile<SIDE>::threads);
  float4 x;

  __device__ Part(const Factor& f, int first_row, int first_inner)
      : rows_left_(f.count - first_row - row()),
        left_(f.inner - first_inner - inner()),
        step_(ROWS_LIE_TOGETHER ? depth : depth * f.stride),
        vectors_(f.stride % 4 == 0 && reinterpret_cast<uintptr_t>(f.from) % 16 == 0) {
    const size_t r = size_t(first_row + row()), k = size_t(first_inner + inner());
    next_ = f.from + (ROWS_LIE_TOGETHER ? r * size_t(f.stride) + k : k * size_t(f.stride) + r);
  }
  __device__ __forceinline__ void load() {
    x = make_float4(0, 0, 0, 0);
    if (rows_left_ > 0 && left_ > 0) {
      if (SIDE == large || vectors_) {
        x = load4(next_);
      } else {
        const int numbers = ROWS_LIE_TOGETHER ? left_ : rows_left_;
        x.x = next_[0];
        if (numbers > 1) x.y = next_[1];
        if (numbers > 2) x.z = next_[2];
        if (numbers > 3) x.w = next_[3];
      }
    }
    left_ -= depth, next_ += step_;
  }
  // to: (depth, SIDE)
  __device__ __forceinline__ void store(float* to) const {
    constexpr int pitch = Tile<SIDE>::pitch;
    to += inner() * pitch + row();
    if (ROWS_LIE_TOGETHER)
      to[0] = x.x, to[pitch] = x.y, to[2 * pitch] = x.z, to[3 * pitch] = x.w;
    else
      store4(to, x);
  }

 private:
  // Of rows that lie together a warp takes 8 numbers of 16: then it reads whole sectors, and writes
  // to different banks.
  static __device__ int row() {
    return ROWS_LIE_TOGETHER ? int(threadIdx.x) / 2 : int(threadIdx.x) % (SIDE / 4) * 4;
  }
  static __device__ int inner() {
    return ROWS_LIE_TOGETHER ? int(threadIdx.x) % 2 * 4 : int(threadIdx.x) / (SIDE / 4);
  }

  const float* next_;
  int rows_left_, left_, step_;
  bool vectors_;
};

// sum += a tile of A B, of the inner numbers `first` to `end`. seen(x): called with each part of A.
template <int SIDE, bool A_ROWS, bool B_ROWS, class Seen>
__device__ __forceinline__ void multiply(Sum2<SIDE>& sum, float* shared, const Factor& a, int row,
                                         const Factor& b, int column, int first, int end,
                                         const Seen& seen) {
  using T = Tile<SIDE>;
  const ThreadPosition<T::TX> at;
  Part<SIDE, A_ROWS> part_a(a, row, first);
  Part<SIDE, B_ROWS> part_b(b, column, first);
  float *now = shared, *other = shared + 2 * T::floats;
  const auto load = [&] {
    part_a.load(), part_b.load();
    seen(part_a.x);
  };
  const auto store = [&](float* to) {
    part_a.store(to), part_b.store(to + T::floats);
    __syncthreads();  // they are there, and nobody reads the other half any more
  };
  load();
  store(now);
  for (int k = first + depth;; k += depth) {
    if (k < end) load();
    add_atb<T::TX, T::TY, depth>(sum, now + at.y * 4, T::pitch, now + T::floats + at.x * 4,
                                 T::pitch);
    if (k >= end) return;
    store(other);
    float* const last = now;
    now = other, other = last;
  }
}

struct Nothing {
  __device__ void operator()(const float4&) const {}
};

// Calls f(row, column, numbers) for each four neighbouring numbers of a thread.
template <int SIDE, class F>
__device__ __forceinline__ void for_vectors(const Sum2<SIDE>& sum, int row, int column,
                                            const F& f) {
  using T = Tile<SIDE>;
  const ThreadPosition<T::TX> at;
#pragma unroll
  for (int i = 0; i < T::R; ++i)
#pragma unroll
    for (int j = 0; j < T::C; j += 4)
      f(row + i / 4 * (4 * T::TY) + at.y * 4 + i % 4, column + gpu::column<T::TX, T::C>(at.x, j),
        make_float4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]));
}
// The first `left` of four numbers, as one where they can be.
__device__ __forceinline__ void store_up_to(float* to, float4 v, int left) {
  if (left >= 4 && reinterpret_cast<uintptr_t>(to) % 16 == 0) return store4(to, v);
  if (left > 0) to[0] = v.x;
  if (left > 1) to[1] = v.y;
  if (left > 2) to[2] = v.z;
  if (left > 3) to[3] = v.w;
}

// The block's tile of the results of M rows and `columns` columns of all runs.
template <int SIDE>
struct RowsTile {
  int row, column, run, part;

  __device__ RowsTile(const Sizes& s, int block, int columns) {
    const int across = tiles_for(columns, SIDE), down = tiles_for(s.M, SIDE);
    column = block % across * SIDE, row = block / across % down * SIDE;
    run = block / across / down % s.runs, part = block / across / down / s.runs;
  }
};

template <int SIDE>
__global__ void __launch_bounds__(Tile<SIDE>::threads, SIDE == large ? 2 : 4)
    linear_forward_kernel(Sizes s, const float* x, const float* w, const float* bias, float* y) {
  wait_for_previous();
  SharedMemory shared;
  float* const memory = shared.array<float>(4 * Tile<SIDE>::floats);
  const RowsTile<SIDE> tile(s, int(blockIdx.x), s.out);
  x += size_t(tile.run) * size_t(s.M) * size_t(s.in);
  y += size_t(tile.run) * size_t(s.M) * size_t(s.out);
  w += size_t(tile.run) * s.stride, bias += size_t(tile.run) * s.stride;
  Sum2<SIDE> sum = {};
  multiply<SIDE, true, true>(sum, memory, {x, s.M, s.in, s.in}, tile.row, {w, s.out, s.in, s.in},
                             tile.column, 0, s.in, Nothing{});
  for_vectors<SIDE>(sum, tile.row, tile.column, [&](int m, int o, float4 v) {
    const int left = m < s.M ? s.out - o : 0;
    const auto add = [&](int j, float& to) { to += j < left ? bias[o + j] : 0.f; };
    add(0, v.x), add(1, v.y), add(2, v.z), add(3, v.w);
    store_up_to(y + size_t(m) * size_t(s.out) + size_t(o), v, left);
  });
}

// dx (M,in) = dy (M,out) · W (out,in), or a part of it.
template <int SIDE>
__device__ __forceinline__ void input_gradient(const Sizes& s, int block, const float* dy,
                                               const float* w, float* dx, bool accumulate,
                                               float* parts, float* memory) {
  const RowsTile<SIDE> tile(s, block, s.in);
  dy += size_t(tile.run) * size_t(s.M) * size_t(s.out);
  w += size_t(tile.run) * s.stride;
  float* const to =
      (parts ? parts + size_t(tile.part) * size_t(s.runs) * size_t(s.M) * size_t(s.in) : dx) +
      size_t(tile.run) * size_t(s.M) * size_t(s.in);
  const int first = tile.part * s.outputs_chunk, end = min(first + s.outputs_chunk, s.out);
  Sum2<SIDE> sum = {};
  multiply<SIDE, true, false>(sum, memory, {dy, s.M, end, s.out}, tile.row, {w, s.in, end, s.in},
                              tile.column, first, end, Nothing{});
  for_vectors<SIDE>(sum, tile.row, tile.column, [&](int m, int i, float4 v) {
    float* at = to + size_t(m) * size_t(s.in) + size_t(i);
    const int left = m < s.M ? s.in - i : 0;
    if (accumulate && !parts) {
      const auto add = [&](int j, float& x) { x = j < left ? at[j] + x : 0.f; };
      add(0, v.x), add(1, v.y), add(2, v.z), add(3, v.w);
    }
    store_up_to(at, v, left);
  });
}

// One chunk's part of a tile of dW (out,in) = dyᵀ · x, and, beside the first column of tiles, of
// db. parts: (R,chunks, out·in + out).
template <int SIDE>
__device__ __forceinline__ void weight_gradient(const Sizes& s, int block, const float* dy,
                                                const float* x, float* parts, float* memory) {
  using T = Tile<SIDE>;
  const int columns = tiles_for(s.in, SIDE), rows = tiles_for(s.out, SIDE);
  const int chunks = s.chunks();
  const int i0 = block % columns * SIDE, o0 = block / columns % rows * SIDE;
  const int part = block / columns / rows, run = part / chunks;
  const int first = part % chunks * s.chunk, end = min(first + s.chunk, s.M);
  dy += size_t(run) * size_t(s.M) * size_t(s.out);
  x += size_t(run) * size_t(s.M) * size_t(s.in);
  parts += size_t(part) * (size_t(s.out) * size_t(s.in) + size_t(s.out));
  Sum2<SIDE> sum = {};
  float4 bias = make_float4(0, 0, 0, 0);  // of every eighth row
  multiply<SIDE, false, false>(
      sum, memory, {dy, s.out, end, s.out}, o0, {x, s.in, end, s.in}, i0, first, end,
      [&](const float4& v) { bias.x += v.x, bias.y += v.y, bias.z += v.z, bias.w += v.w; });
  for_vectors<SIDE>(sum, o0, i0, [&](int o, int i, float4 v) {
    store_up_to(parts + size_t(o) * size_t(s.in) + size_t(i), v, o < s.out ? s.in - i : 0);
  });
  if (i0 > 0) return;
  constexpr int shares = T::threads / (SIDE / 4);
  static_assert(shares == 8);
  __syncthreads();  // nobody reads the factors any more
  store4(memory + 4 * int(threadIdx.x), bias);
  __syncthreads();
  const int o = int(threadIdx.x);
  if (o >= SIDE || o0 + o >= s.out) return;
  float total = 0;
#pragma unroll
  for (int share = 0; share < shares; ++share) total += memory[share * SIDE + o];
  parts[size_t(s.out) * size_t(s.in) + size_t(o0 + o)] = total;
}

// Blocks of either or both; those of dW, the first, take longest.
template <int SIDE>
__global__ void __launch_bounds__(Tile<SIDE>::threads, SIDE == large ? 2 : 4)
    linear_backward_kernel(Sizes s, const float* x, const float* w, const float* dy, float* dx,
                           bool accumulate, float* weight_parts, float* input_parts,
                           int weight_blocks) {
  wait_for_previous();
  SharedMemory shared;
  float* const memory = shared.array<float>(4 * Tile<SIDE>::floats);
  const int block = int(blockIdx.x);
  if (block < weight_blocks)
    weight_gradient<SIDE>(s, block, dy, x, weight_parts, memory);
  else
    input_gradient<SIDE>(s, block - weight_blocks, dy, w, dx, accumulate, input_parts, memory);
}

// dw += its parts, db likewise, in the chunks' order. A thread a number.
__global__ void linear_sum(Sizes s, const float* parts, float* dw, float* db) {
  wait_for_previous();
  const size_t weights = size_t(s.out) * size_t(s.in), size = weights + size_t(s.out);
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x, run = i / size, e = i % size;
  if (run >= size_t(s.runs)) return;
  const int chunks = s.chunks();
  const float* part = parts + run * size_t(chunks) * size + e;
  float sum = 0;
#pragma unroll 8
  for (int k = 0; k < chunks; ++k) sum += part[size_t(k) * size];
  (e < weights ? dw + e : db + (e - weights))[run * s.stride] += sum;
}

// dx := the sum of its parts, or += it.
__global__ void linear_input_sum(Sizes s, size_t numbers, const float* parts, float* dx,
                                 bool accumulate) {
  wait_for_previous();
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= numbers) return;
  float sum = 0;
#pragma unroll 8
  for (int k = 0; k < s.input_parts(); ++k) sum += parts[size_t(k) * numbers + i];
  dx[i] = accumulate ? dx[i] + sum : sum;
}

template <class F>
void for_side(int side, const F& f) {
  side == large ? f(std::integral_constant<int, large>{}) : f(std::integral_constant<int, small>{});
}
// The side of the tiles of a result of M rows and so many columns: large ones, which read whole
// vectors only, if there are enough.
int rows_side(const Sizes& s, int columns, const float* weight) {
  const bool vectors = s.vectors && reinterpret_cast<uintptr_t>(weight) % 16 == 0;
  const bool enough = s.tiles(columns, large) * s.runs >= device().multiprocessors * 3 / 2;
  return vectors && s.M >= large && columns >= large && enough ? large : small;
}

size_t blocks_of(size_t threads) {
  return (threads + 127) / 128;
}

}  // namespace

void linear_forward(const Runs& runs, const LinearSize& size, const float* x,
                    const LinearLayer& layer, float* y, void* stream) {
  const Sizes s(runs, size);
  for_side(rows_side(s, s.out, layer.weight), [&](auto side) {
    constexpr int SIDE = decltype(side)::value;
    launch(early({"linear_forward", size_t(s.tiles(s.out, SIDE) * s.runs), Tile<SIDE>::threads,
                  Tile<SIDE>::shared_size}),
           stream, linear_forward_kernel<SIDE>, s, x, layer.weight, layer.bias, y);
  });
}

size_t linear_part_floats(const Runs& runs, const LinearSize& size) {
  const Sizes s(runs, size);
  return s.weight_floats() + (s.input_parts() > 1 ? s.input_floats() * size_t(s.input_parts()) : 0);
}

void linear_backward(const Runs& runs, const LinearSize& size, const float* x, const float* weight,
                     const float* dy, float* dx, bool accumulate, const LinearGradient& to,
                     float* parts, void* stream) {
  const Sizes s(runs, size);
  const int n = s.input_parts(), input_side = n > 1 ? small : rows_side(s, s.in, weight);
  float* const input_parts = n > 1 ? parts + s.weight_floats() : nullptr;
  const auto start = [&](int of_side, bool weights, bool inputs) {
    for_side(of_side, [&](auto side) {
      constexpr int SIDE = decltype(side)::value;
      const int weight_blocks =
          weights ? s.chunks() * s.runs * tiles_for(s.out, SIDE) * tiles_for(s.in, SIDE) : 0;
      const int input_blocks = inputs ? s.tiles(s.in, SIDE) * s.runs * n : 0;
      launch(early({"linear_backward", size_t(weight_blocks + input_blocks), Tile<SIDE>::threads,
                    Tile<SIDE>::shared_size}),
             stream, linear_backward_kernel<SIDE>, s, x, weight, dy, dx, accumulate, parts,
             input_parts, weight_blocks);
    });
  };
  const bool together = s.weight_side == input_side;
  start(s.weight_side, true, together);
  if (!together) start(input_side, false, true);
  if (n > 1)
    launch(early({"linear_input_sum", blocks_of(s.input_floats()), 128}), stream, linear_input_sum,
           s, s.input_floats(), input_parts, dx, accumulate);
  launch(early({"linear_sum", blocks_of(s.sums_of_weights()), 128}), stream, linear_sum, s, parts,
         to.weight, to.bias);
}

}  // namespace focus::gpu
