// Starting a kernel, on the GPU or under emulation.
#pragma once

#include <tuple>
#include <utility>

#include "cuda/device/device.h"
#include "cuda/simt/simt.h"
#include "error.h"
#ifdef __CUDACC__
#include "cuda/device/check.h"
#endif

namespace focus::gpu {

struct LaunchSize {
  const char* name;   // the kernel's
  size_t blocks;      // at most 2^31 - 1
  int threads;        // of a block
  size_t shared = 0;  // bytes of dynamic shared memory
  // All blocks run at the same time and may wait for each other; there must be room for them
  // (blocks_at_once).
  bool together = false;
};

// How many blocks of a kernel the device runs at the same time.
template <class Kernel>
int blocks_at_once([[maybe_unused]] Kernel* kernel, [[maybe_unused]] int threads,
                   [[maybe_unused]] size_t shared) {
#ifdef __CUDACC__
  if (shared > device().shared_memory) return 0;
  CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)));
  int per_multiprocessor = 0;
  CUDA_CHECK(
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, kernel, threads, shared));
  return per_multiprocessor * device().multiprocessors;
#else
  return 12;  // each thread of theirs is a fiber with a stack
#endif
}

// kernel<<<blocks, threads, shared, stream>>>(arguments…), after checking that the device can.
template <class... Parameters, class... Arguments>
void launch(const LaunchSize& size, void* stream, void (*kernel)(Parameters...),
            Arguments&&... arguments) {
  if (size.blocks == 0) return;
  if (size.blocks > 0x7FFFFFFF) fail_input(size.name, ": ", size.blocks, " blocks, at most 2^31-1");
  if (size.shared > device().shared_memory)
    fail_input(size.name, " needs ", size.shared, " bytes of shared memory, ", device().name,
               " has ", device().shared_memory, " for a block: use a lower rung");
  count_launch(size.name);
#ifdef __CUDACC__
  if (size.shared > 48 * 1024)  // beyond it a kernel must be told
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    int(size.shared)));
  if (size.together) {
    // The driver wants pointers to arguments of exactly the kernel's types.
    std::tuple<std::remove_cv_t<Parameters>...> values(std::forward<Arguments>(arguments)...);
    std::apply(
        [&](auto&... value) {
          void* pointers[] = {&value...};
          CUDA_CHECK(cudaLaunchCooperativeKernel(kernel, unsigned(size.blocks),
                                                 unsigned(size.threads), pointers, size.shared,
                                                 static_cast<cudaStream_t>(stream)));
        },
        values);
    return;
  }
  kernel<<<unsigned(size.blocks), unsigned(size.threads), size.shared,
           static_cast<cudaStream_t>(stream)>>>(std::forward<Arguments>(arguments)...);
  CUDA_CHECK_LAST(size.name);
#else
  (void)stream;
  simt::run_grid({size.name,
                  {unsigned(size.blocks), 1, 1},
                  {unsigned(size.threads), 1, 1},
                  size.shared,
                  size.together},
                 [&] { kernel(arguments...); });
#endif
}

}  // namespace focus::gpu
