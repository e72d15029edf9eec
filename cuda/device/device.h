// The GPUs at hand: whether there are any, their memory, their clock. Each thread uses one of them
// at a time; memory, streams and records belong to the one that was in use when they were made.
// Plain C++: needs no CUDA. Built without nvcc, "device memory" is host memory and kernels run on
// the CPU (simt/emulator.h), one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace focus::gpu {

// True if this program's kernels run on the CPU.
bool emulated();

// Under emulation: the order in which later launches run their threads and blocks; 0 is the natural
// one. No effect on a GPU.
void shuffle_threads(uint64_t seed);
// Likewise: records what threads do (simt/emulator.h says what), from now on; on a GPU always "".
void record_acts();
std::string acts_of(unsigned block, int thread);
// Likewise: as if every device had so much memory. Returns the most that was in use since the last
// call, of the first.
size_t limit_memory(size_t bytes);
// Likewise: as if there were so many devices. They are all whole again.
void pretend_devices(int count);
// Likewise: a device fails for good after so many more launches; then whatever calls it throws
// DeviceLost.
void break_device(int number, uint64_t launches);

// "" if kernels can run, else one line that says why not (no device, the driver is too old, …).
std::string device_problem();

struct DeviceInfo {
  std::string name;  // "NVIDIA H200", or "CPU emulation"
  int multiprocessors = 0;
  int compute = 0;              // 90 is compute capability 9.0
  size_t memory = 0;            // bytes
  size_t shared_memory = 0;     // bytes that one block can have
  size_t l2 = 0;                // bytes of second-level cache
  int clock_khz = 0;            // the highest
  double multiply_adds = 0;     // of float32, a second, at that clock; 0 under emulation
  int driver = 0, runtime = 0;  // 13000 is 13.0
};
int device_count();
// From now on this thread's calls go to that one, from 0; a thread begins with the first.
void use_device(int number);
int device_in_use();
const DeviceInfo& device();  // in use; InputError with device_problem() if there is none
const DeviceInfo& device(int number);
// "" if kernels can use tensor cores for tf32 and bf16, else why not.
std::string tensor_core_problem();

// InputError "out of GPU memory: …" with the numbers; the device stays usable.
// `element`: the bytes of one element, for the emulator's messages.
void* allocate(size_t bytes, size_t element = 1);
void release(void* memory) noexcept;
// Copies are in order with what is started on stream nullptr, not with Streams (streams.h).
void copy_to_device(void* to, const void* from, size_t bytes);  // waits until it is there
void copy_to_host(void* to, const void* from, size_t bytes);    // likewise
void copy_on_device(void* to, const void* from, size_t bytes);
void fill_bytes(void* to, int byte, size_t bytes);  // waits; 0xFF makes every float a NaN
void synchronize();                                 // DeviceLost if a kernel has failed

// How often launch() has started each kernel so far, in the order of their first starts. What a
// graph repeats was started once, when it was recorded.
struct LaunchCount {
  const char* kernel;
  uint64_t launches;
  double ms;  // in time_launches()
};
std::vector<LaunchCount> launches_so_far();
// Those that this thread makes in `work`, each waited for, with their times. Records are not used.
std::vector<LaunchCount> time_launches(const std::function<void()>& work);
bool times_launches();  // is this thread in such work?
// For launch(): what starts a kernel. DeviceLost if the device has failed.
void count_launch(const char* kernel, void* stream, const std::function<void()>& start);

// An array in device memory.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(size_t n)
      : n_(n), data_(static_cast<T*>(allocate(n * sizeof(T), sizeof(T)))) {}
  explicit DeviceArray(const std::vector<T>& from) : DeviceArray(from.size()) { set(from); }
  T* data() const { return data_.get(); }
  size_t size() const { return n_; }
  void set(const std::vector<T>& from) { copy_to_device(data(), from.data(), n_ * sizeof(T)); }
  std::vector<T> host() const {
    std::vector<T> result(n_);
    copy_to_host(result.data(), data(), n_ * sizeof(T));
    return result;
  }
  void poison() { fill_bytes(data(), 0xFF, n_ * sizeof(T)); }

 private:
  struct Release {
    void operator()(T* memory) const { release(memory); }
  };
  size_t n_ = 0;
  std::unique_ptr<T, Release> data_;
};

// Milliseconds on the device's clock between two moments of its work, on a stream.
class Timer {
 public:
  Timer();
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  void start(void* stream = nullptr);
  double stop(void* stream = nullptr);  // waits

 private:
  void *begin_, *end_;
};

}  // namespace focus::gpu
