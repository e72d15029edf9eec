#include <cmath>
#include <functional>

#include "cuda/bench/microbenchmarks.h"
#include "cuda/device/launch.h"
#include "report/statistics.h"

namespace focus::gpu {

namespace {

constexpr int block_threads = 256, chains = 8, row_floats = 32;

enum class Operation { multiply_add, minimum, compare };

// Eight independent chains a thread hide the latency of each.
template <Operation operation>
__global__ void arithmetic(float* out, int iterations, float factor, float term) {
  float x[chains];
  int above = 0;
#pragma unroll
  for (int i = 0; i < chains; ++i) x[i] = float(threadIdx.x + unsigned(i)) * term;
  for (int step = 0; step < iterations; ++step) {
    if constexpr (operation == Operation::compare) term += factor;
#pragma unroll
    for (int i = 0; i < chains; ++i) {
      if constexpr (operation == Operation::multiply_add) x[i] = fmaf(x[i], factor, term);
      // Each looks at its neighbour: else the compiler would see that once is enough.
      if constexpr (operation == Operation::minimum)
        x[i] = i % 2 ? fminf(x[i], x[(i + 1) % chains]) : fmaxf(x[i], x[(i + 1) % chains]);
      if constexpr (operation == Operation::compare) above += x[i] > term;
    }
  }
  float sum = float(above);
#pragma unroll
  for (int i = 0; i < chains; ++i) sum += x[i];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

// Numbers that look random: where the next row is must not be guessed by a prefetcher.
__device__ unsigned next(unsigned state) {
  return state * 1664525u + 1013904223u;
}

// Eight lanes read a row of 128 bytes, four floats each.
__global__ void gather(float* out, const float* table, unsigned rows, int reads) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned state = thread / 8 * 2654435761u;
  float sum = 0;
  for (int i = 0; i < reads; ++i) {
    state = next(state);
    const float4 x = load4(table + size_t{(state >> 8) % rows} * row_floats + thread % 8 * 4);
    sum += x.x + x.y + x.z + x.w;
  }
  out[thread] = sum;
}

__device__ void add4(float* to, float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float4*>(to), make_float4(value, value, value, value));
#else
  for (int i = 0; i < 4; ++i) atomicAdd(to + i, value);
#endif
}

// The same with atomic additions; one row is what everybody wants when `rows` is 1.
__global__ void scatter_add(float* table, unsigned rows, int writes) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned state = thread / 8 * 2654435761u;
  for (int i = 0; i < writes; ++i) {
    state = next(state);
    add4(table + size_t{(state >> 8) % rows} * row_floats + thread % 8 * 4, 1.f);
  }
}

__global__ void empty() {}

// Each block counts itself in and waits for the others, `barriers` times.
__global__ void meet(unsigned* arrived, int barriers) {
  for (int i = 1; i <= barriers; ++i) {
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      atomicAdd(arrived, 1u);
      while (atomicAdd(arrived, 0u) < unsigned(i) * gridDim.x) spin();
    }
    __syncthreads();
  }
}

#ifdef __CUDACC__
// A matrix product of 16 × 8 numbers with a depth of 16 (bf16) or 8 (tf32) by one warp.
template <bool bf16>
__global__ void tensor_cores(float* out, int iterations) {
#if __CUDA_ARCH__ >= 800
  float c[4][4] = {};
  const unsigned one = bf16 ? 0x3F803F80u : 0x3F800000u, a = threadIdx.x % 2 ? one : 0u;
  for (int step = 0; step < iterations; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (bf16)
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%4,%4,%4}, "
            "{%5,%5}, {%0,%1,%2,%3};"
            : "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
            : "r"(a), "r"(one));
      else
        asm volatile(
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%4,%4,%4}, "
            "{%5,%5}, {%0,%1,%2,%3};"
            : "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
            : "r"(a), "r"(one));
    }
  }
  float sum = 0;
  for (int i = 0; i < 4; ++i) sum += c[i][0] + c[i][1] + c[i][2] + c[i][3];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
#endif
}
#endif

class Microbenchmarks {
 public:
  explicit Microbenchmarks(const MicrobenchmarkSize& size)
      : size_(size), out_(blocks() * block_threads) {}

  size_t blocks() const {
    return size_t(device().multiprocessors) * size_t(size_.blocks_per_multiprocessor);
  }

  // `amount` over the seconds that `work` takes, or those seconds over `amount` if `inverse`.
  void add(const std::string& name, const std::string& unit, double amount, bool inverse,
           const std::function<void()>& work) {
    Timer timer;
    work();
    std::vector<double> values;
    for (int run = 0; run < size_.runs; ++run) {
      timer.start();
      work();
      const double seconds = timer.stop() / 1e3;
      values.push_back(inverse ? seconds / amount : amount / seconds);
    }
    results.push_back({name, median(values), quantile(values, 0.25), quantile(values, 0.75), unit});
  }

  template <Operation operation>
  void add_arithmetic(const std::string& name, const std::string& unit, double each) {
    out_.poison();
    const double amount = each * chains * double(size_.iterations) * double(out_.size());
    add(name, unit, amount / 1e12, false, [&] {
      launch({"arithmetic", blocks(), block_threads}, nullptr, arithmetic<operation>, out_.data(),
             size_.iterations, 0.999f, 0.001f);
    });
    for (float x : out_.host())
      if (!std::isfinite(x))
        fail_run("microbenchmark ", name, ": a thread has not written its result");
  }

  void add_gather() {
    const std::vector<float> ones(size_t(size_.table_rows) * row_floats, 1.f);
    const DeviceArray<float> table(ones);
    out_.poison();
    const double bytes = 16. * size_.rows_per_thread * double(out_.size());
    add("rows of 128 bytes read at random, from the cache", "TB/s", bytes / 1e12, false, [&] {
      launch({"gather", blocks(), block_threads}, nullptr, gather, out_.data(), table.data(),
             unsigned(size_.table_rows), size_.rows_per_thread);
    });
    for (float x : out_.host())
      if (!(x == 4.f * float(size_.rows_per_thread)))
        fail_run("microbenchmark gather: a wrong sum, ", x);
  }

  void add_scatter(const std::string& name, int rows, int writes) {
    const std::vector<float> zeros(size_t(rows) * row_floats, 0.f);
    DeviceArray<float> table(zeros);
    const double amount = double(writes) * double(out_.size());
    add(name, "10⁹/s", amount / 1e9, false, [&] {
      launch({"scatter_add", blocks(), block_threads}, nullptr, scatter_add, table.data(),
             unsigned(rows), writes);
    });
    double sum = 0;
    for (float x : table.host()) sum += double(x);
    // Beyond 2^24 a float32 counts no further.
    if (rows > 1 && !(sum == 4 * amount * (size_.runs + 1)))
      fail_run("microbenchmark ", name, ": ", sum, " additions arrived");
  }

  void add_barrier(int blocks_met) {
    DeviceArray<unsigned> arrived(1);
    add(str("a barrier of ", blocks_met, " blocks"), "µs", size_.barriers / 1e6, true, [&] {
      fill_bytes(arrived.data(), 0, sizeof(unsigned));
      launch({"meet", size_t(blocks_met), block_threads, 0, true}, nullptr, meet, arrived.data(),
             size_.barriers);
    });
    if (arrived.host()[0] != unsigned(blocks_met * size_.barriers))
      fail_run("microbenchmark barrier: ", arrived.host()[0], " arrivals");
  }

  void add_launches() {
    const auto all = [&](void* stream) {
      for (int i = 0; i < size_.launches; ++i) launch({"empty", 1, 32}, stream, empty);
    };
    add("an empty kernel, launched one by one", "µs", size_.launches / 1e6, true,
        [&] { all(nullptr); });
#ifdef __CUDACC__
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CUDA_CHECK(cudaStreamCreate(&stream));
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    all(stream);
    CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    CUDA_CHECK(cudaGraphInstantiate(&ready, graph, 0));
    add("an empty kernel, replayed from a graph", "µs", size_.launches / 1e6, true,
        [&] { CUDA_CHECK(cudaGraphLaunch(ready, nullptr)); });
    cudaGraphExecDestroy(ready);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
#endif
  }

#ifdef __CUDACC__
  template <bool bf16>
  void add_tensor_cores(const std::string& name) {
    out_.poison();
    const double warps = double(out_.size()) / 32, depth = bf16 ? 16 : 8;
    add(name, "TFLOP/s", warps * 4 * size_.iterations * 2 * 16 * 8 * depth / 1e12, false, [&] {
      launch({"tensor_cores", blocks(), block_threads}, nullptr, tensor_cores<bf16>, out_.data(),
             size_.iterations);
    });
    for (float x : out_.host())
      if (!(x > 0)) fail_run("microbenchmark ", name, ": a wrong sum, ", x);
  }

  // How many groups of blocks that share their memories fit, one block a multiprocessor.
  void add_clusters(int blocks_each) {
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {unsigned(blocks_each), 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = unsigned(blocks_each);
    config.blockDim = block_threads;
    config.dynamicSmemBytes = 200 * 1024;
    config.attrs = &attribute, config.numAttrs = 1;
    int fit = 0;
    CUDA_CHECK(
        cudaFuncSetAttribute(empty, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 * 1024));
    CUDA_CHECK(cudaOccupancyMaxActiveClusters(&fit, empty, &config));
    results.push_back({str("clusters of ", blocks_each, " blocks at the same time"), double(fit),
                       double(fit), double(fit), ""});
  }
#endif

  std::vector<Microbenchmark> results;

 private:
  MicrobenchmarkSize size_;
  DeviceArray<float> out_;
};

}  // namespace

std::vector<Microbenchmark> run_microbenchmarks(const MicrobenchmarkSize& size) {
  Microbenchmarks p(size);
  p.add_arithmetic<Operation::multiply_add>("float32 multiply-adds, two operations each", "TFLOP/s",
                                            2);
  p.add_arithmetic<Operation::minimum>("float32 minimum or maximum", "10¹²/s", 1);
  p.add_arithmetic<Operation::compare>("float32 compare and count", "10¹²/s", 1);
#ifdef __CUDACC__
  if (device().compute >= 80) {
    p.add_tensor_cores<true>("mma.sync, bf16");
    p.add_tensor_cores<false>("mma.sync, tf32");
  }
#endif
  p.add_gather();
  p.add_scatter("additions of four floats, to random rows", size.table_rows,
                size.rows_per_thread / 8 + 1);
  p.add_scatter("additions of four floats, to one row", 1, size.rows_per_thread / 8 + 1);
  p.add_launches();
  for (int blocks : {2, 13, 26, 130})
    if (blocks <= blocks_at_once(meet, block_threads, 0)) p.add_barrier(blocks);
#ifdef __CUDACC__
  if (device().compute >= 90)
    for (int blocks : {2, 4, 5, 8}) p.add_clusters(blocks);
#endif
  return p.results;
}

}  // namespace focus::gpu
