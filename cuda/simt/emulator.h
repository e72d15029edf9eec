// Runs CUDA kernels on the CPU: the part of the CUDA language that the kernels of this project use,
// as plain C++. A kernel's source is compiled twice, by nvcc for the GPU and with this header by
// any C++ compiler, so that it can be tested and stepped through in a debugger without a GPU.
//
// The threads of a block are fibers: each has a stack of its own, one runs at a time, and it runs
// until it must wait for others (a barrier, a shuffle) or meets an atomic operation. What is
// reported, naming kernel, file and line:
//   - a barrier, shuffle, vote or matrix product (mma.h) that some of its threads never reach
//   - a shuffle that reads a lane outside its mask
//   - writes past the end of a shared array (the address sanitizer finds reads too)
//   - reads and writes outside the arrays of global memory, and where
// The order of threads and blocks is shuffled by a seed, and shared memory starts as NaN, so that
// code that lacks a barrier computes something else for some seed.
//
// In emulator.cpp, memory.cpp, fault.cpp.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

// The running thread's place; the emulator sets them whenever it switches threads.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace focus::simt {

struct Launch {
  const char* kernel;  // for messages
  dim3 grid, block;
  size_t shared_bytes;  // of dynamic shared memory
  // All blocks at once, so that they may wait for each other (a cooperative launch); else one after
  // another.
  bool together = false;
};

// Runs the kernel's body once for each thread of each block. RunError as listed above.
void run_grid(const Launch& launch, const std::function<void()>& body);

// The order of threads and blocks in later launches; 0 is the natural order.
void set_seed(uint64_t seed);

// The next shared array of this thread's block; all threads must ask for the same ones in the same
// order.
void* shared_array(size_t bytes);

enum class Wait { barrier, warp, shuffle, ballot, match, matrix };

void wait_for_block(const char* file, int line);
bool any_in_block(bool predicate, const char* file, int line);

// Waits for the lanes of `mask`; then values[l] is what lane l brought, and may be read until the
// thread's next wait.
const uint64_t* exchange(Wait kind, unsigned mask, uint64_t mine, const char* file, int line);

// Once all lanes of the warp are there, work(lanes) runs, once, with what each has brought; then
// all go on.
using WarpWork = void (*)(void* const (&lanes)[32]);
void warp_works(WarpWork work, void* mine, const char* file, int line);

// Lets other threads go first, or not.
void maybe_yield();

// One turn of a loop that waits for another block: lets all others go first. RunError once nobody
// does anything but wait like this. As on a GPU, the compiler is not told that memory may change
// meanwhile ("pure"), so that a loop that looks at a number which is not volatile may read it once.
[[gnu::pure]] int take_turn(const char* file, int line, int turn);
inline void spin(const char* file, int line) {
  int turn;  // another one each time, for all that the compiler knows
  asm volatile("" : "=r"(turn));
  asm volatile("" : : "r"(take_turn(file, line, turn)));
}

// What each thread does in later launches that other threads may have to see, for tests of what the
// CPU does not feel. In order, a letter each: f a fence, a an atomic operation, c a load past the
// first-level cache, s a turn of waiting, w __syncwarp, h a shuffle, b a ballot, m
// __match_any_sync, x a matrix product.
void record_acts();
std::string acts_of(unsigned block, int thread);
extern bool recording;
void note_act(char act);

int lane();
[[noreturn]] void report(const char* what, int other_lane, const char* file, int line);

template <class T>
uint64_t to_bits(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
T shuffle(unsigned mask, T value, int source, const char* file, int line) {
  const uint64_t* values = exchange(Wait::shuffle, mask, to_bits(value), file, line);
  if (!(mask >> source & 1)) report("a shuffle reads a lane outside its mask", source, file, line);
  T result;
  std::memcpy(&result, &values[source], sizeof result);
  return result;
}

// Instruments (count.h) ask these, and are told of what no instrumented load or store shows.
int running_thread();                   // its number in the block; -1: none is running
bool in_shared_memory(const void* at);  // of the running block
bool in_device_memory(const void* at);
// Where arrays of the device's memory begin: at multiples of so many bytes, 16. A GPU's are of 256,
// but then less is found past their ends.
size_t& array_alignment();
// An array in the device's memory, of elements of so many bytes. std::bad_alloc.
void* new_array(size_t bytes, size_t element);
void delete_array(void* begin) noexcept;
void note_atomic(const void* at, size_t bytes);

struct Instrument {
  // `code`: a place in the program that is the same for all threads.
  void (*access)(const void* at, size_t bytes, bool write, bool atomic, const void* code) = nullptr;
  void (*block_ended)(const Launch& launch, bool last_block) = nullptr;
};
extern Instrument instrument;

// Copies that a thread has started and not yet waited for.
void start_copy(void* to, const void* from, size_t bytes);
void commit_copies();
void wait_for_copies(size_t groups_left);

}  // namespace focus::simt

// --- the names that kernels use -----------------------------------------------------------------
// file and line are those of the caller.

#define FOCUS_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(FOCUS_HERE) {
  focus::simt::wait_for_block(file, line);
}
// A barrier that also tells whether any thread brought true.
inline bool __syncthreads_or(bool predicate, FOCUS_HERE) {
  return focus::simt::any_in_block(predicate, file, line);
}
inline void __syncwarp(unsigned mask = ~0u, FOCUS_HERE) {
  focus::simt::exchange(focus::simt::Wait::warp, mask, 0, file, line);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, FOCUS_HERE) {
  return focus::simt::shuffle(mask, value, source & 31, file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, FOCUS_HERE) {
  return focus::simt::shuffle(mask, value, focus::simt::lane() ^ lanes, file, line);
}
// Lanes below `delta` keep their own value.
template <class T>
T __shfl_up_sync(unsigned mask, T value, int delta, FOCUS_HERE) {
  const int own = focus::simt::lane(), source = own - delta;
  return focus::simt::shuffle(mask, value, source < 0 ? own : source, file, line);
}
inline unsigned __ballot_sync(unsigned mask, bool predicate, FOCUS_HERE) {
  const uint64_t* values =
      focus::simt::exchange(focus::simt::Wait::ballot, mask, predicate, file, line);
  unsigned result = 0;
  for (unsigned l = 0; l < 32; ++l)
    if (mask >> l & 1) result |= unsigned(values[l] & 1) << l;
  return result;
}
inline bool __any_sync(unsigned mask, bool predicate, FOCUS_HERE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
// The largest value that a lane of the mask brought.
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, FOCUS_HERE) {
  const uint64_t* values =
      focus::simt::exchange(focus::simt::Wait::ballot, mask, value, file, line);
  unsigned result = 0;
  for (unsigned l = 0; l < 32; ++l)
    if ((mask >> l & 1) && unsigned(values[l]) > result) result = unsigned(values[l]);
  return result;
}
// The lanes that brought the same value.
template <class T>
unsigned __match_any_sync(unsigned mask, T value, FOCUS_HERE) {
  const uint64_t own = focus::simt::to_bits(value);
  const uint64_t* values = focus::simt::exchange(focus::simt::Wait::match, mask, own, file, line);
  unsigned result = 0;
  for (unsigned l = 0; l < 32; ++l)
    if ((mask >> l & 1) && values[l] == own) result |= 1u << l;
  return result;
}

// An instrument counts them as atomics, not as a load and a store.
#define FOCUS_ATOMIC __attribute__((noinline, no_sanitize("thread")))
template <class T>
FOCUS_ATOMIC T atomicAdd(T* at, T value) {
  focus::simt::note_atomic(at, sizeof(T));
  focus::simt::maybe_yield();
  const T old = *at;
  *at = T(old + value);
  return old;
}
FOCUS_ATOMIC inline unsigned atomicOr(unsigned* at, unsigned value) {
  focus::simt::note_atomic(at, sizeof(unsigned));
  focus::simt::maybe_yield();
  const unsigned old = *at;
  *at = old | value;
  return old;
}

inline void __threadfence() {
  asm volatile("" : : : "memory");
  if (focus::simt::recording) focus::simt::note_act('f');
}

inline int min(int a, int b) {
  return a < b ? a : b;
}
inline int max(int a, int b) {
  return a > b ? a : b;
}
inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __ffs(unsigned x) {  // 1 + the lowest set bit's place, 0 if there is none
  return __builtin_ffs(int(x));
}
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
template <class T>
T __ldg(const T* at) {
  return *at;
}
// Past the first-level cache, which does not hear of other blocks' writes.
template <class T>
T __ldcg(const T* at) {
  if (focus::simt::recording) focus::simt::note_act('c');
  return *at;
}

// Asynchronous copies from global to shared memory: nothing arrives before the wait.
inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes) {
  focus::simt::start_copy(to, from, bytes);
}
inline void __pipeline_commit() {
  focus::simt::commit_copies();
}
inline void __pipeline_wait_prior(size_t groups_left) {
  focus::simt::wait_for_copies(groups_left);
}

#undef FOCUS_HERE
#undef FOCUS_ATOMIC
