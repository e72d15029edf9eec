// Starting a kernel, on the GPU or under emulation.
#pragma once

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
  bool early = false;
};

// The same kernel, whose blocks may start before the kernel before it on the stream has ended, as
// soon as there is room: it calls wait_for_previous(). Without effect before compute
// capability 9.0.
inline LaunchSize early(LaunchSize size) {
  size.early = true;
  return size;
}

// What the kernels' code was compiled for, not the device, knows whether wait_for_previous() waits.
inline constexpr bool starts_early = [] {
#ifdef __CUDACC__
  for (const int arch : {__CUDA_ARCH_LIST__})
    if (arch < 900) return false;
  return true;
#else
  return false;
#endif
}();

#ifdef __CUDACC__
// A kernel must be told that it may have more than 48 KB of shared memory. It is told of all there
// is: less would undo what recorded launches of the same kernel need.
template <class Kernel>
void allow_shared_memory(Kernel* kernel) {
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  int(device().shared_memory)));
}
#endif

// How many blocks of a kernel the device runs at the same time.
template <class Kernel>
int blocks_at_once([[maybe_unused]] Kernel* kernel, [[maybe_unused]] int threads,
                   [[maybe_unused]] size_t shared) {
#ifdef __CUDACC__
  if (shared > device().shared_memory) return 0;
  allow_shared_memory(kernel);
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
  count_launch(size.name, stream, [&] {
#ifdef __CUDACC__
    if (size.shared > 48 * 1024) allow_shared_memory(kernel);
    cudaLaunchAttribute attributes[2]{};
    cudaLaunchConfig_t how{unsigned(size.blocks),
                           unsigned(size.threads),
                           size.shared,
                           static_cast<cudaStream_t>(stream),
                           attributes,
                           0};
    if (size.together) {
      attributes[how.numAttrs].id = cudaLaunchAttributeCooperative;
      attributes[how.numAttrs++].val.cooperative = 1;
    }
    if (starts_early && size.early) {
      attributes[how.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attributes[how.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    check_cuda(cudaLaunchKernelEx(&how, kernel, std::forward<Arguments>(arguments)...), size.name,
               __FILE__, __LINE__);
#else
    simt::run_grid({size.name,
                    {unsigned(size.blocks), 1, 1},
                    {unsigned(size.threads), 1, 1},
                    size.shared,
                    size.together},
                   [&] { kernel(arguments...); });
#endif
  });
}

}  // namespace focus::gpu
