#include <algorithm>
#include <cstring>

#include "cuda/device/device.h"
#include "error.h"
#ifdef __CUDACC__
#include "cuda/device/check.h"
#else
#include <utility>

#include "clock.h"
#include "cuda/simt/emulator.h"
#endif

namespace focus::gpu {

const DeviceInfo& device() {
  static const DeviceInfo info = [] {
    if (const std::string problem = device_problem(); !problem.empty()) fail_input(problem);
    DeviceInfo d;
#ifdef __CUDACC__
    int number = 0;
    CUDA_CHECK(cudaGetDevice(&number));
    cudaDeviceProp p;
    CUDA_CHECK(cudaGetDeviceProperties(&p, number));
    d.name = p.name, d.multiprocessors = p.multiProcessorCount;
    d.compute = p.major * 10 + p.minor, d.memory = p.totalGlobalMem;
    d.shared_memory = p.sharedMemPerBlockOptin, d.l2 = size_t(p.l2CacheSize);
    CUDA_CHECK(cudaDeviceGetAttribute(&d.clock_khz, cudaDevAttrClockRate, number));
    const int lanes = d.compute >= 86 ? 128 : 64;  // of a multiprocessor, one each a cycle
    d.multiply_adds = 1e3 * lanes * d.multiprocessors * d.clock_khz;
    CUDA_CHECK(cudaDriverGetVersion(&d.driver));
    CUDA_CHECK(cudaRuntimeGetVersion(&d.runtime));
#else
    d.name = "CPU emulation", d.multiprocessors = 2, d.shared_memory = 227 * 1024;
#endif
    return d;
  }();
  return info;
}

namespace {
std::vector<LaunchCount> launched;
}
const std::vector<LaunchCount>& launches_so_far() {
  return launched;
}
void count_launch(const char* kernel) {
  for (LaunchCount& one : launched)
    if (std::strcmp(one.kernel, kernel) == 0) {
      ++one.launches;
      return;
    }
  launched.push_back({kernel, 1});
}

#ifdef __CUDACC__

bool emulated() {
  return false;
}
void shuffle_threads(uint64_t) {}
void record_acts() {}
std::string acts_of(unsigned, int) {
  return "";
}
size_t limit_memory(size_t) {
  return 0;
}

std::string device_problem() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return "";
  cudaGetLastError();
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (error == cudaErrorInsufficientDriver && driver > 0)
    return str("the NVIDIA driver supports CUDA ", driver / 1000, ".", driver % 1000 / 10,
               ", this program needs ", runtime / 1000, ".", runtime % 1000 / 10,
               ": update the driver");
  return driver == 0 ? "no NVIDIA driver is installed here"
                     : str("no usable GPU: ", cudaGetErrorString(error));
}

std::string tensor_core_problem() {
  const DeviceInfo& d = device();
  if (d.compute < 80)
    return str(d.name, " has compute capability ", d.compute / 10, ".", d.compute % 10,
               ", tensor cores for tf32 and bf16 need 8.0");
  int compiled = 0;  // what it runs of the code in this program
  for (const int arch : {__CUDA_ARCH_LIST__})
    if (arch / 10 <= d.compute) compiled = std::max(compiled, arch / 10);
  return compiled >= 80 ? ""
                        : "this program was compiled for older GPUs, CUDA_ARCH=native make "
                          "compiles it for this one";
}

void* allocate(size_t bytes, size_t) {
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, bytes > 0 ? bytes : 1);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free_bytes = 0, total = 0;
    CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total));
    throw OutOfMemory(str("out of GPU memory: ", bytes, " bytes wanted, ", free_bytes, " of ",
                          total, " are free; choose a smaller batch, length or model"));
  }
  CUDA_CHECK(error);
  return memory;
}
void release(void* memory) noexcept {
  cudaFree(memory);
}
void copy_to_device(void* to, const void* from, size_t bytes) {
  CUDA_CHECK(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}
void copy_to_host(void* to, const void* from, size_t bytes) {
  CUDA_CHECK(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}
void copy_on_device(void* to, const void* from, size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice));
}
void fill_bytes(void* to, int byte, size_t bytes) {
  CUDA_CHECK(cudaMemset(to, byte, bytes));
}
void synchronize() {
  CUDA_CHECK(cudaDeviceSynchronize());
}

Timer::Timer() {
  cudaEvent_t begin, end;
  CUDA_CHECK(cudaEventCreate(&begin));
  CUDA_CHECK(cudaEventCreate(&end));
  begin_ = begin, end_ = end;
}
Timer::~Timer() {
  cudaEventDestroy(static_cast<cudaEvent_t>(begin_));
  cudaEventDestroy(static_cast<cudaEvent_t>(end_));
}
void Timer::start() {
  CUDA_CHECK(cudaEventRecord(static_cast<cudaEvent_t>(begin_)));
}
double Timer::stop() {
  CUDA_CHECK(cudaEventRecord(static_cast<cudaEvent_t>(end_)));
  CUDA_CHECK(cudaEventSynchronize(static_cast<cudaEvent_t>(end_)));
  float ms = 0;
  CUDA_CHECK(
      cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(begin_), static_cast<cudaEvent_t>(end_)));
  return double(ms);
}

#else

bool emulated() {
  return true;
}
void shuffle_threads(uint64_t seed) {
  simt::set_seed(seed);
}
void record_acts() {
  simt::record_acts();
}
std::string acts_of(unsigned block, int thread) {
  return simt::acts_of(block, thread);
}
size_t limit_memory(size_t bytes) {
  simt::DeviceMemory& all = simt::device_memory();
  all.size = bytes;
  return std::exchange(all.most, all.used);
}
std::string device_problem() {
  return "";
}
std::string tensor_core_problem() {
  return "";
}
void* allocate(size_t bytes, size_t element) {
  if (const simt::DeviceMemory& all = simt::device_memory(); bytes > all.size - all.used)
    throw OutOfMemory(str("out of GPU memory: ", bytes,
                          " bytes wanted; choose a smaller batch, length or model"));
  return simt::new_array(bytes, element);
}
void release(void* memory) noexcept {
  simt::delete_array(memory);
}
void copy_to_device(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void copy_to_host(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void copy_on_device(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void fill_bytes(void* to, int byte, size_t bytes) {
  if (bytes > 0) std::memset(to, byte, bytes);
}
void synchronize() {}

namespace {
double* new_moment() {
  return new double(0);
}
}  // namespace

Timer::Timer() : begin_(new_moment()), end_(nullptr) {}
Timer::~Timer() {
  delete static_cast<double*>(begin_);
}
void Timer::start() {
  *static_cast<double*>(begin_) = seconds_now();
}
double Timer::stop() {
  return 1e3 * (seconds_now() - *static_cast<double*>(begin_));
}

#endif

}  // namespace focus::gpu
