// Blocks that wait for each other, under emulation.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "cuda/simt/simt.h"
#include "error.h"

using namespace focus;

namespace {

std::string error_of(bool together, int blocks, const std::function<void()>& kernel) {
  try {
    simt::run_grid({"some_kernel", {unsigned(blocks), 1, 1}, {40, 1, 1}, 0, together}, kernel);
  } catch (const RunError& error) {
    return error.what();
  }
  return "";
}

// A barrier of all blocks: thread 0 announces and waits.
void wait_for_all(unsigned* arrived, unsigned all) {
  __syncthreads();
  if (threadIdx.x == 0) {
    atomicAdd(arrived, 1u);
    while (*static_cast<volatile unsigned*>(arrived) < all) gpu::spin();
  }
  __syncthreads();
}

}  // namespace

TEST_CASE("emulator: blocks launched together see what others wrote before a common barrier") {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    simt::set_seed(seed);
    std::vector<int> written(4), seen(4);
    unsigned arrived = 0;
    CHECK(error_of(true, 4, [&] {
            if (threadIdx.x == 7) written[blockIdx.x] = int(blockIdx.x) + 10;
            wait_for_all(&arrived, 4);
            if (threadIdx.x == 9) seen[blockIdx.x] = written[(blockIdx.x + 1) % 4];
          }) == "");
    CHECK(seen == std::vector<int>{11, 12, 13, 10});
  }
  simt::set_seed(0);
}

TEST_CASE("emulator: a block that never comes is told, with the place of the wait") {
  unsigned arrived = 0;
  const std::string error = error_of(true, 3, [&] {
    if (blockIdx.x != 1) wait_for_all(&arrived, 3);
  });
  CHECK(error.find("waits for another block, which never comes") != std::string::npos);
  CHECK(error.find("test_cuda_together_emulator.cpp:") != std::string::npos);
  arrived = 0;
  CHECK(error_of(false, 3, [&] { wait_for_all(&arrived, 3); }).find("launched together") !=
        std::string::npos);
}

TEST_CASE("emulator: a wait for an exact count hangs for some seed, as it may on a GPU") {
  int hung = 0;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    simt::set_seed(seed);
    unsigned arrived = 0;
    const std::string error = error_of(true, 4, [&] {
      for (unsigned all = 4; all <= 12; all += 4) {
        __syncthreads();
        if (threadIdx.x == 0) {
          atomicAdd(&arrived, 1u);
          while (*static_cast<volatile unsigned*>(&arrived) != all) gpu::spin();
        }
        __syncthreads();
      }
    });
    hung += error.find("never comes") != std::string::npos;
  }
  simt::set_seed(0);
  CHECK(hung > 0);
}
