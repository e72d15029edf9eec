// What the emulator's counter makes of small kernels whose traffic is known by hand. This file is
// compiled with a call before every load and store, as libfocus-counted.a is.
#include <doctest/doctest.h>

#include "cuda/device/launch.h"
#include "cuda/simt/count.h"

using namespace focus;
using gpu::DeviceArray;

namespace {

// Each thread reads a number, `stride` floats from its neighbour's, and writes one beside it.
__global__ void read_strided(const float* from, float* to, int stride) {
  const int t = int(blockIdx.x * blockDim.x + threadIdx.x);
  to[t] = from[t * stride];
}
__global__ void read_vectors(const float* from, float* to) {
  const int t = int(threadIdx.x);
  gpu::store4(to + 4 * t, gpu::load4(from + 4 * t));
}
// One cycle of the banks to write, `stride` of them (at most 32) to read; stride 0: one for all.
__global__ void read_banks(float* to, int stride) {
  gpu::SharedMemory shared;
  float* numbers = shared.array<float>(32 * 32);
  const int t = int(threadIdx.x);
  numbers[t] = float(t);
  __syncthreads();
  to[t] = numbers[t * stride % 1024];
}
__global__ void add_to_one(float* to) {
  atomicAdd(to, 1.f);
}
__global__ void copy_async(const float* from, float* to) {
  gpu::SharedMemory shared;
  float* numbers = shared.array<float>(128);
  const int t = int(threadIdx.x);
  __pipeline_memcpy_async(numbers + 4 * t, from + 4 * t, 16);
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();
  to[t] = numbers[t];
}

simt::Traffic only() {
  const std::vector<simt::KernelTraffic> all = simt::take_traffic();
  REQUIRE(all.size() == 1);
  CHECK(all[0].launches == 1);
  return all[0].traffic;
}

}  // namespace

TEST_CASE("cuda count: a warp's request takes as many lines as it touches") {
  DeviceArray<float> from(64 * 64), to(64);
  from.set(std::vector<float>(from.size(), 1.f));
  for (const auto& expected : {std::pair{0, 1}, {1, 1}, {2, 2}, {8, 8}, {32, 32}, {64, 32}}) {
    const int stride = expected.first, lines = expected.second;
    CAPTURE(stride);
    simt::take_traffic();
    gpu::launch({"read_strided", 2, 32}, nullptr, read_strided, from.data(), to.data(), stride);
    const simt::Traffic t = only();
    CHECK(t.global_requests == 4);  // a load and a store of two warps
    CHECK(int(t.global_lines) == 2 * lines + 2);
    CHECK(t.global_bytes == 2 * 64 * 4);
    CHECK(t.shared_requests == 0);
    CHECK(t.atomics == 0);
    // Sectors of 32 bytes: the output's 8, and those read, which both blocks share at stride 0.
    const int read = stride == 0 ? 1 : std::min(64, 64 * stride / 8);
    CHECK(int(t.distinct_bytes) == 32 * (8 + read));
  }
}

TEST_CASE("cuda count: a vector of 16 bytes is one request") {
  DeviceArray<float> from(std::vector<float>(128, 1.f)), to(128);
  simt::take_traffic();
  gpu::launch({"read_vectors", 1, 32}, nullptr, read_vectors, from.data(), to.data());
  const simt::Traffic t = only();
  CHECK(t.global_requests == 2);
  CHECK(t.global_lines == 8);
  CHECK(t.global_bytes == 1024);
}

TEST_CASE("cuda count: a bank gives one word a cycle") {
  DeviceArray<float> to(32);
  for (const auto& expected : {std::pair{0, 1}, {1, 1}, {2, 2}, {16, 16}, {32, 32}, {31, 1}}) {
    const int stride = expected.first, cycles = expected.second;
    CAPTURE(stride);
    simt::take_traffic();
    gpu::launch({"read_banks", 1, 32, 4096}, nullptr, read_banks, to.data(), stride);
    const simt::Traffic t = only();
    CHECK(t.shared_requests == 2);
    CHECK(int(t.shared_cycles) == 1 + cycles);
    CHECK(t.global_requests == 1);
  }
}

TEST_CASE("cuda count: atomics and asynchronous copies") {
  DeviceArray<float> from(std::vector<float>(128, 1.f)), to(std::vector<float>(32, 0.f));
  simt::take_traffic();
  gpu::launch({"add_to_one", 3, 64}, nullptr, add_to_one, to.data());
  const simt::Traffic added = only();
  CHECK(to.host()[0] == 192);
  CHECK(added.atomics == 6);
  CHECK(added.global_requests == 0);
  gpu::launch({"copy_async", 1, 32, 512}, nullptr, copy_async, from.data(), to.data());
  const simt::Traffic copied = only();
  CHECK(copied.global_requests == 2);
  CHECK(copied.global_lines == 4 + 1);
  CHECK(copied.shared_requests == 2);
  CHECK(copied.shared_cycles == 4 + 1);
}
