#include <algorithm>
#include <cstring>
#include <mutex>

#include "cuda/device/device.h"
#include "error.h"
#ifdef __CUDACC__
#include "cuda/device/check.h"
#else
#include <map>
#include <utility>

#include "clock.h"
#include "cuda/simt/emulator.h"
#endif

namespace focus::gpu {

namespace {

thread_local int in_use = 0;

DeviceInfo info_of([[maybe_unused]] int number) {
  DeviceInfo d;
#ifdef __CUDACC__
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
}

}  // namespace

const DeviceInfo& device(int number) {
  static const std::vector<DeviceInfo> all = [] {
    if (const std::string problem = device_problem(); !problem.empty()) fail_input(problem);
    std::vector<DeviceInfo> infos;
    for (int number = 0; number < device_count(); ++number) infos.push_back(info_of(number));
    return infos;
  }();
  return emulated() ? all[0] : all[size_t(number)];
}
const DeviceInfo& device() {
  return device(in_use);
}
int device_in_use() {
  return in_use;
}

namespace {

std::mutex launched_mutex;
std::vector<LaunchCount> launched;
thread_local std::vector<LaunchCount>* timed = nullptr;

void count(std::vector<LaunchCount>& all, const char* kernel, double ms) {
  for (LaunchCount& one : all)
    if (std::strcmp(one.kernel, kernel) == 0) {
      ++one.launches, one.ms += ms;
      return;
    }
  all.push_back({kernel, 1, ms});
}

}  // namespace

std::vector<LaunchCount> launches_so_far() {
  const std::lock_guard lock(launched_mutex);
  return launched;
}

bool times_launches() {
  return timed;
}

std::vector<LaunchCount> time_launches(const std::function<void()>& work) {
  std::vector<LaunchCount> all;
  timed = &all;
  try {
    work();
  } catch (...) {
    timed = nullptr;
    throw;
  }
  timed = nullptr;
  return all;
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
void pretend_devices(int) {}
void break_device(int, uint64_t) {}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}
void use_device(int number) {
  CUDA_CHECK(cudaSetDevice(number));
  in_use = number;
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
  CUDA_CHECK(cudaStreamSynchronize(nullptr));  // it may have gone no further than a buffer
}
void copy_to_host(void* to, const void* from, size_t bytes) {
  CUDA_CHECK(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}
void copy_on_device(void* to, const void* from, size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice));
}
void fill_bytes(void* to, int byte, size_t bytes) {
  CUDA_CHECK(cudaMemset(to, byte, bytes));
  CUDA_CHECK(cudaStreamSynchronize(nullptr));
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
void Timer::start(void* stream) {
  CUDA_CHECK(cudaEventRecord(static_cast<cudaEvent_t>(begin_), static_cast<cudaStream_t>(stream)));
}
double Timer::stop(void* stream) {
  CUDA_CHECK(cudaEventRecord(static_cast<cudaEvent_t>(end_), static_cast<cudaStream_t>(stream)));
  CUDA_CHECK(cudaEventSynchronize(static_cast<cudaEvent_t>(end_)));
  float ms = 0;
  CUDA_CHECK(
      cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(begin_), static_cast<cudaEvent_t>(end_)));
  return double(ms);
}

namespace {
void start_kernel(const std::function<void()>& start) {
  start();
}
void wait_for_all() {
  CUDA_CHECK(cudaDeviceSynchronize());
}
}  // namespace

#else

bool emulated() {
  return true;
}

namespace {

// The emulator runs one kernel at a time, whichever thread and device it is for.
std::mutex emulator_mutex;

struct Emulated {
  size_t used = 0, most = 0;       // bytes of memory, now and since limit_memory()
  uint64_t launches_left = ~0ull;  // until it fails
};
std::vector<Emulated> devices(1);
size_t memory_of_each = size_t{1} << 38;             // as large as a GPU's might be
std::map<void*, std::pair<int, size_t> > allocated;  // whose, and how large

void check_device() {
  if (devices[size_t(in_use)].launches_left == 0)
    throw DeviceLost(str("CUDA: emulated GPU ", in_use, " has failed"));
}

}  // namespace

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
  const std::lock_guard lock(emulator_mutex);
  memory_of_each = bytes;
  const size_t most = devices[0].most;
  for (Emulated& one : devices) one.most = one.used;
  return most;
}
void pretend_devices(int count) {
  const std::lock_guard lock(emulator_mutex);
  devices.resize(size_t(count));
  for (Emulated& one : devices) one.launches_left = ~0ull;
}
void break_device(int number, uint64_t launches) {
  const std::lock_guard lock(emulator_mutex);
  devices.at(size_t(number)).launches_left = launches;
}
int device_count() {
  return int(devices.size());
}
void use_device(int number) {
  if (number < 0 || number >= device_count()) fail_input("no device ", number);
  in_use = number;
}
std::string device_problem() {
  return "";
}
std::string tensor_core_problem() {
  return "";
}
void* allocate(size_t bytes, size_t element) {
  const std::lock_guard lock(emulator_mutex);
  check_device();
  Emulated& own = devices[size_t(in_use)];
  if (bytes > memory_of_each - std::min(memory_of_each, own.used))
    throw OutOfMemory(str("out of GPU memory: ", bytes,
                          " bytes wanted; choose a smaller batch, length or model"));
  void* memory = simt::new_array(bytes, element);
  allocated[memory] = {in_use, bytes};
  own.used += bytes, own.most = std::max(own.most, own.used);
  return memory;
}
void release(void* memory) noexcept {
  if (!memory) return;
  const std::lock_guard lock(emulator_mutex);
  const auto one = allocated.find(memory);
  devices[size_t(one->second.first)].used -= one->second.second;
  allocated.erase(one);
  simt::delete_array(memory);
}
void copy_to_device(void* to, const void* from, size_t bytes) {
  check_device();
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void copy_to_host(void* to, const void* from, size_t bytes) {
  check_device();
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void copy_on_device(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void fill_bytes(void* to, int byte, size_t bytes) {
  if (bytes > 0) std::memset(to, byte, bytes);
}
void synchronize() {
  check_device();
}

namespace {
double* new_moment() {
  return new double(0);
}
}  // namespace

Timer::Timer() : begin_(new_moment()), end_(nullptr) {}
Timer::~Timer() {
  delete static_cast<double*>(begin_);
}
void Timer::start(void*) {
  *static_cast<double*>(begin_) = seconds_now();
}
double Timer::stop(void*) {
  return 1e3 * (seconds_now() - *static_cast<double*>(begin_));
}

namespace {
void start_kernel(const std::function<void()>& start) {
  const std::lock_guard lock(emulator_mutex);
  uint64_t& left = devices[size_t(in_use)].launches_left;
  if (left != ~0ull && left > 0) --left;
  check_device();
  start();
}
void wait_for_all() {}
}  // namespace

#endif

void count_launch(const char* kernel, void* stream, const std::function<void()>& start) {
  if (!timed) {
    start_kernel(start);
  } else {
    wait_for_all();  // what runs beside it would slow it down
    Timer timer;
    timer.start(stream);
    start_kernel(start);
    count(*timed, kernel, timer.stop(stream));
  }
  const std::lock_guard lock(launched_mutex);
  count(launched, kernel, 0);
}

}  // namespace focus::gpu
