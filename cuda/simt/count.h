// Counts what kernels read and write, under emulation: half of what a kernel costs can be seen
// without a GPU.
//
// For this the kernels are compiled once more (libfocus-counted.a, cuda.mk), with the compiler's
// option for finding data races: it puts a call before every load and store, and here those calls
// count. What the 32 threads of a warp do at one place of the code, each for the same time, is one
// request, as on the GPU. A request to global memory is served line by line, 128 bytes each,
// however few of them are wanted; a request to shared memory takes as many cycles as the busiest of
// its 32 banks has different words to give. Both pass through the same path, a line or a cycle's
// worth at a time on each multiprocessor.
//
// What is not modelled: which lines a cache still holds, and what the processor does meanwhile.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace focus::simt {

struct Traffic {
  uint64_t global_requests = 0;
  uint64_t global_lines = 0;    // 128 bytes
  uint64_t global_bytes = 0;    // wanted by the threads
  uint64_t distinct_bytes = 0;  // of global memory, in sectors of 32; each counted once a launch
  uint64_t shared_requests = 0;
  uint64_t shared_cycles = 0;  // at least: halves and quarters of a warp are not told apart
  uint64_t atomics = 0;        // requests to global memory; not among the others
  uint64_t shared_atomics = 0;

  Traffic& operator+=(const Traffic& other);
};

struct KernelTraffic {
  std::string kernel;
  int launches = 0;
  Traffic traffic;
};

// What ran since the last call, kernels in the order of their first launch. Counting begins with
// the first call, and only kernels of libfocus-counted.a are seen. RunError where the program is
// built with the thread sanitizer, which needs the same calls.
std::vector<KernelTraffic> take_traffic();

}  // namespace focus::simt
