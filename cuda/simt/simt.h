// What a kernel file includes: CUDA itself under nvcc, else its emulation on the CPU
// (emulator.h); then the few helpers that differ between the two.
#pragma once

#ifdef __CUDACC__
#include <cuda_pipeline.h>
#include <cuda_runtime.h>
#else
#include "cuda/simt/emulator.h"
#endif

namespace focus::gpu {

inline constexpr unsigned all_lanes = ~0u;
inline constexpr float log2_e = 1.4426950408889634f, ln_2 = 0.6931471805599453f;

// A block's dynamic shared memory, cut into arrays that start at multiples of 16 bytes. All
// threads must ask for the same arrays in the same order. Under emulation each is an allocation of
// its own, so that reading or writing beside it is found.
class SharedMemory {
 public:
  template <class T>
  __device__ T* array(int n) {
#ifdef __CUDACC__
    extern __shared__ __align__(16) unsigned char memory[];
    T* result = reinterpret_cast<T*>(memory + used_);
    used_ += (unsigned(n) * unsigned(sizeof(T)) + 15) / 16 * 16;
    return result;
#else
    return static_cast<T*>(simt::shared_array(size_t(n) * sizeof(T)));
#endif
  }

 private:
#ifdef __CUDACC__
  unsigned used_ = 0;
#endif
};

// Bytes of shared memory for arrays of these numbers of floats (or ints).
template <class... Counts>
constexpr size_t shared_bytes_for(Counts... counts) {
  return (((size_t(counts) * 4 + 15) / 16 * 16) + ...);
}

// 2^x in one instruction of the special-function unit: error 2 units in the last place, and results
// below the smallest normal number become 0.
__device__ __forceinline__ float fast_exp2(float x) {
#ifdef __CUDACC__
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return std::exp2(x);
#endif
}

// The logarithm to base 2, likewise: error 2⁻²² near 1.
__device__ __forceinline__ float fast_log2(float x) {
#ifdef __CUDACC__
  float result;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return std::log2(x);
#endif
}

// One turn of a loop that waits until another block has written something.
__device__ __forceinline__ void spin([[maybe_unused]] const char* file = __builtin_FILE(),
                                     [[maybe_unused]] int line = __builtin_LINE()) {
#ifdef __CUDACC__
  __nanosleep(20);
#else
  simt::spin(file, line);
#endif
}

// A clock for giving up on a wait. Under emulation it stands still: there a wait that cannot end is
// found at once.
__device__ __forceinline__ long long nanoseconds() {
#ifdef __CUDACC__
  long long result;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(result));
  return result;
#else
  return 0;
#endif
}

// In a kernel that is launched early (launch.h): until this call it may run beside the kernel
// before it on its stream, whose writes are there after it. All that came before that one has
// ended. Before the call a kernel may read what the one before it does not write, and must write
// nothing; every thread block calls it. From now on the next kernel's blocks may start.
__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// In a kernel that asks for each part of what the kernel before it makes whether it is there: from
// now on the next kernel's blocks may start, though the one before may still run. What that one
// writes must be of no use to the next one. All blocks call wait_for_previous() before they end.
__device__ __forceinline__ void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Asks for what is at `at` to be brought to the second-level cache, and waits for nothing.
__device__ __forceinline__ void prefetch([[maybe_unused]] const float* at) {
#ifdef __CUDACC__
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
#endif
}

__device__ __forceinline__ float2 load2(const float* at) {
  return *reinterpret_cast<const float2*>(at);
}
__device__ __forceinline__ void store2(float* at, float2 x) {
  *reinterpret_cast<float2*>(at) = x;
}
__device__ __forceinline__ float4 load4(const float* at) {
  return *reinterpret_cast<const float4*>(at);
}
__device__ __forceinline__ void store4(float* at, float4 x) {
  *reinterpret_cast<float4*>(at) = x;
}

// Starts copying N floats (1 or 4) to shared memory, which arrive with what else the thread copies;
// zeros where `inside` is false: then `from` may be any address.
template <int N>
__device__ __forceinline__ void copy_or_zero(float* to, const float* from, bool inside) {
#if defined(__CUDACC__) && __CUDA_ARCH__ >= 800
  // Without a branch, unlike __pipeline_memcpy_async under an if.
  const unsigned address = unsigned(__cvta_generic_to_shared(to));
  if constexpr (N == 4)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(address), "l"(from), "r"(inside ? 16 : 0)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 :
                 : "r"(address), "l"(from), "r"(inside ? 4 : 0)
                 : "memory");
#else
  for (int i = 0; i < N && !inside; ++i) to[i] = 0;
  if (inside) __pipeline_memcpy_async(to, from, 4 * N);
#endif
}

}  // namespace focus::gpu
