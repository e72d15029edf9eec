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
};

// kernel<<<blocks, threads, shared, stream>>>(arguments…), after checking that the device can.
template <class... Parameters, class... Arguments>
void launch(const LaunchSize& size, void* stream, void (*kernel)(Parameters...),
            Arguments&&... arguments) {
  if (size.blocks == 0) return;
  if (size.blocks > 0x7FFFFFFF) fail_input(size.name, ": ", size.blocks, " blocks, at most 2^31-1");
  if (size.shared > device().shared_memory)
    fail_input(size.name, " needs ", size.shared, " bytes of shared memory, ", device().name,
               " has ", device().shared_memory, " for a block: use a lower rung");
#ifdef __CUDACC__
  if (size.shared > 48 * 1024)  // beyond it a kernel must be told
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    int(size.shared)));
  kernel<<<unsigned(size.blocks), unsigned(size.threads), size.shared,
           static_cast<cudaStream_t>(stream)>>>(std::forward<Arguments>(arguments)...);
  CUDA_CHECK_LAST(size.name);
#else
  (void)stream;
  simt::run_grid(
      {size.name, {unsigned(size.blocks), 1, 1}, {unsigned(size.threads), 1, 1}, size.shared},
      [&] { kernel(arguments...); });
#endif
}

}  // namespace focus::gpu
