// The emulator itself: that it finds the mistakes it is there to find.
#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "cuda/simt/fiber.h"
#include "cuda/simt/simt.h"
#include "error.h"

using namespace focus;

namespace {

// The message of the RunError that a kernel ends with, "" if it ends well.
template <class F>
std::string error_of(int blocks, int threads, size_t shared, const F& kernel) {
  try {
    simt::run_grid({"some_kernel", {unsigned(blocks), 1, 1}, {unsigned(threads), 1, 1}, shared},
                   kernel);
  } catch (const RunError& error) {
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct Natural {
  ~Natural() { simt::set_seed(0); }
};

}  // namespace

TEST_CASE("emulator: every thread of every block runs once, in any order") {
  const Natural at_the_end;
  std::set<std::vector<unsigned>> orders;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    simt::set_seed(seed);
    std::vector<int> ran(3 * 70);
    std::vector<unsigned> order;
    CHECK(error_of(3, 70, 0, [&] {
            ++ran[blockIdx.x * blockDim.x + threadIdx.x];
            order.push_back(blockIdx.x * blockDim.x + threadIdx.x);
          }) == "");
    CHECK(ran == std::vector<int>(3 * 70, 1));
    orders.insert(order);
  }
  CHECK(orders.size() == 10);
}

TEST_CASE("emulator: a missing barrier gives wrong numbers for some seed, the right code never") {
  const Natural at_the_end;
  const auto wrong_for = [](bool barrier) {
    int wrong = 0;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      simt::set_seed(seed);
      std::vector<float> out(64);
      error_of(1, 64, 256, [&] {
        gpu::SharedMemory shared;
        float* x = shared.array<float>(64);
        const int t = int(threadIdx.x);
        x[t] = float(t);
        if (barrier) __syncthreads();
        out[size_t(t)] = x[63 - t];
      });
      for (size_t t = 0; t < 64; ++t)
        if (!(out[t] == float(63 - t))) ++wrong;  // NaN is wrong too
    }
    return wrong;
  };
  CHECK(wrong_for(false) > 0);
  CHECK(wrong_for(true) == 0);
}

TEST_CASE("emulator: a barrier that not all threads reach names kernel, file and line") {
  const std::string ended = error_of(1, 64, 0, [] {
    if (threadIdx.x < 40) __syncthreads();
  });
  CHECK(has(ended, "kernel some_kernel"));
  CHECK(has(ended, "test_cuda_emulator.cpp:"));
  CHECK(has(ended, "__syncthreads is reached by 40 of 64 threads"));
  CHECK(has(ended, "thread (40,0,0) has ended"));
  const std::string elsewhere = error_of(1, 64, 0, [] {
    if (threadIdx.x < 40)
      __syncthreads();
    else
      __syncthreads();
  });
  CHECK(has(elsewhere, "waits at __syncthreads"));
  // And the next launch works.
  CHECK(error_of(1, 64, 0, [] { __syncthreads(); }) == "");
}

TEST_CASE("emulator: warp operations wait for their mask and nobody else") {
  CHECK(has(error_of(1, 32, 0,
                     [] {
                       if (threadIdx.x != 5) __syncwarp();
                     }),
            "__syncwarp is reached by 31 of 32 threads"));
  CHECK(has(error_of(1, 20, 0, [] { __syncwarp(); }), "not in the block"));
  CHECK(error_of(1, 64, 0, [] {
          if (threadIdx.x % 32 < 8) __syncwarp(0xFF);
        }) == "");
  CHECK(has(error_of(1, 32, 0, [] { __syncwarp(0xFF); }), "not in the mask"));
  CHECK(has(error_of(1, 32, 0,
                     [] {
                       if (threadIdx.x < 8) __shfl_sync(0xFF, 1, 9);
                     }),
            "outside its mask"));
}

TEST_CASE("emulator: shuffles, votes and matches") {
  std::vector<int> up(64), xored(64), from3(64);
  std::vector<unsigned> ballot(64), match(64);
  CHECK(error_of(1, 64, 0, [&] {
          const int t = int(threadIdx.x);
          from3[size_t(t)] = __shfl_sync(gpu::all_lanes, t, 3);
          xored[size_t(t)] = __shfl_xor_sync(gpu::all_lanes, t, 5);
          up[size_t(t)] = __shfl_up_sync(gpu::all_lanes, t, 4);
          ballot[size_t(t)] = __ballot_sync(gpu::all_lanes, t % 3 == 0);
          match[size_t(t)] = __match_any_sync(gpu::all_lanes, t % 4);
        }) == "");
  for (int t = 0; t < 64; ++t) {
    const int warp = t / 32 * 32, lane = t % 32;
    CHECK(from3[size_t(t)] == warp + 3);
    CHECK(xored[size_t(t)] == warp + (lane ^ 5));
    CHECK(up[size_t(t)] == (lane < 4 ? t : t - 4));
    for (int l = 0; l < 32; ++l) {
      CHECK((ballot[size_t(t)] >> l & 1) == unsigned((warp + l) % 3 == 0));
      CHECK((match[size_t(t)] >> l & 1) == unsigned((warp + l) % 4 == t % 4));
    }
  }
}

TEST_CASE("emulator: atomics return what was there; their order changes with the seed") {
  const Natural at_the_end;
  std::set<std::vector<int>> orders;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    simt::set_seed(seed);
    int count = 0;
    unsigned bits = 0;
    std::vector<int> places(40);
    error_of(1, 40, 0, [&] {
      places[threadIdx.x] = atomicAdd(&count, 1);
      atomicOr(&bits, 1u << threadIdx.x % 32);
    });
    CHECK(count == 40);
    CHECK(bits == ~0u);
    CHECK(std::set<int>(places.begin(), places.end()).size() == 40);
    orders.insert(places);
  }
  CHECK(orders.size() > 1);
}

TEST_CASE("emulator: shared memory starts as NaN; a write past an array's end is reported") {
  bool nan = false;
  CHECK(error_of(1, 1, 64, [&] {
          gpu::SharedMemory shared;
          nan = std::isnan(shared.array<float>(4)[3]);
        }) == "");
  CHECK(nan);
#if !defined(__SANITIZE_ADDRESS__)  // it reports the write itself
  CHECK(has(error_of(1, 1, 64,
                     [] {
                       gpu::SharedMemory shared;
                       float* volatile x = shared.array<float>(4);
                       x[5] = 1;
                     }),
            "past the end of shared array 1 of 16 bytes"));
#endif
  CHECK(has(error_of(1, 1, 64, [] { gpu::SharedMemory().array<float>(17); }),
            "68 bytes of shared memory, launched with 64"));
  CHECK(has(error_of(1, 2, 64, [] { gpu::SharedMemory().array<float>(threadIdx.x == 0 ? 4 : 5); }),
            "16 bytes in one thread and 20 in another"));
}

TEST_CASE("emulator: an asynchronous copy arrives at the wait, not before") {
  float before = 0, after = 0;
  const float from = 7;
  CHECK(error_of(1, 1, 64, [&] {
          gpu::SharedMemory shared;
          float* x = shared.array<float>(4);
          __pipeline_memcpy_async(x, &from, 4);
          __pipeline_commit();
          __pipeline_wait_prior(1);
          before = x[0];
          __pipeline_wait_prior(0);
          after = x[0];
        }) == "");
  CHECK(std::isnan(before));
  CHECK(after == 7);
}

#if !defined(FOCUS_ASAN) && !defined(FOCUS_TSAN)  // which find it themselves
TEST_CASE("emulator: what is outside an array of global memory is told with all its coordinates") {
  const size_t alignment = std::exchange(simt::array_alignment(), size_t{16});
  auto* x = static_cast<float*>(simt::new_array(40, 4));  // ten numbers, then two guard words
  float read = 0;
  const auto error_at = [&](int index, bool write) {
    return error_of(3, 40, 0, [&] {
      if (blockIdx.x != 1 || threadIdx.x != 5) return;
      if (write)
        x[index] = 1;
      else
        read = *const_cast<volatile float*>(x + index);
    });
  };
  CHECK(error_at(9, true) == "");
  const std::string far = error_at(1000, false);
  CHECK(has(far, "kernel some_kernel"));
  CHECK(has(far, "block (1,0,0), thread (5,0,0) reads index 1000 of an array of 10"));
  CHECK(has(error_at(12, true), "writes index 12 of an array of 10"));
  CHECK(has(error_at(-2000, true), "writes index -2000 of an array of 10"));
  CHECK(has(error_at(10, true), "past the end of an array of 10"));
  CHECK(has(error_at(-1, true), "before the beginning of an array of 10"));
  CHECK(error_at(10, false) == "");  // too near to be caught in the act, but not a number
  CHECK(std::isnan(read));
  CHECK(has(error_of(1, 1, 0, [] { *static_cast<volatile int*>(nullptr) = 1; }),
            "a pointer that is null"));
  CHECK(error_at(0, false) == "");  // and all is as before
  CHECK(read == 0);
  simt::delete_array(x);
  simt::array_alignment() = alignment;
}
#endif
