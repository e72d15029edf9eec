// CUDA_CHECK(call): every call of the CUDA runtime goes through it. An error becomes an exception
// that names the call's place and what to do. What is no fault of the input counts as the loss of
// the device: after a kernel has failed, CUDA refuses every later call for it.
#pragma once

#include <cuda_runtime.h>

#include "error.h"

namespace focus::gpu {

inline void check_cuda(cudaError_t error, const char* call, const char* file, int line) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next check would report this one again
  const std::string message = str("CUDA: ", cudaGetErrorString(error), " (",
                                  cudaGetErrorName(error), ") from ", call, ", ", file, ":", line);
  switch (error) {
    case cudaErrorMemoryAllocation:
      fail_input(message, ": choose a smaller batch, length or model");
    case cudaErrorNoDevice:
      fail_input(message, ": no NVIDIA GPU is visible; use --device cpu");
    case cudaErrorInsufficientDriver:
      fail_input(message, ": update the NVIDIA driver, or use --device cpu");
    case cudaErrorNoKernelImageForDevice:
      fail_input(message, ": build for this GPU, e.g. make CUDA_ARCH=sm_75");
    default:
      throw DeviceLost(message);
  }
}

}  // namespace focus::gpu

#define CUDA_CHECK(call) ::focus::gpu::check_cuda(call, #call, __FILE__, __LINE__)
