// The order of kernels: a stream, two more beside it, and records of what they were given, which
// repeat it at once.
#pragma once

#include <array>
#include <cstddef>
#include <functional>

namespace focus::gpu {

// What is started on the main stream runs in order. What is started on a side stream may run beside
// what follows on the main stream, but not before what is there by then. Streams of several objects
// run beside each other: whoever copies without them first waits for what they do.
class Streams {
 public:
  // Where the device has no room for all blocks, those of `low` ones come last.
  enum class Priority { high, low };
  explicit Streams(Priority = Priority::high);
  ~Streams();
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;

  void* main() const { return main_; }

  enum class Side { forward, backward };  // attention's masks and indices; blocks' masks and sums
  void* beside(Side);
  // The same for what depends on nothing that the main stream has done since fork().
  void* ahead(Side side) {
    return sides_[size_t(side)].used ? sides_[size_t(side)].stream : beside(side);
  }
  void fork() { beside(Side::forward), beside(Side::backward); }
  // The main stream waits for one, or for all.
  void wait_for(Side);
  void join();

  // Copies in order with the main stream; download waits for it.
  void upload(void* to, const void* from, size_t bytes);
  void download(void* to, const void* from, size_t bytes);
  void copy(void* to, const void* from, size_t bytes);  // both on the device
  void wait();                                          // for all of it

 private:
  struct SideStream {
    void *stream = nullptr, *forked = nullptr, *joined = nullptr;  // and two events
    bool used = false;                                             // since the last join()
  };
  void* main_ = nullptr;
  std::array<SideStream, 2> sides_;
};

// Records the kernels that a piece of work starts the first time, as a CUDA graph, and repeats the
// record from then on: the same kernels with the same arguments.
class Record {
 public:
  Record() = default;
  ~Record();
  Record(Record&& other) noexcept;
  Record& operator=(Record&&) = delete;
  void forget();  // the next run() records anew
  void run(Streams& streams, const std::function<void()>& work);

 private:
  void* graph_ = nullptr;
};

}  // namespace focus::gpu
