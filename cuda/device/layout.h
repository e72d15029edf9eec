// Where the arrays of a step lie: pieces of one piece of device memory, taken one after the other.
#pragma once

#include <cstddef>
#include <cstdint>

namespace focus::gpu {

class Layout {
 public:
  static constexpr size_t alignment = 256;  // what cudaMalloc gives

  Layout() : Layout(reinterpret_cast<char*>(alignment)) {}  // only measures
  explicit Layout(char* memory) : memory_(memory) {}

  template <class T>
  T* take(size_t n) {
    char* const piece = memory_ + used_;
    used_ += (n * sizeof(T) + alignment - 1) / alignment * alignment;
    return reinterpret_cast<T*>(piece);
  }
  size_t used() const { return used_; }

 private:
  char* memory_;
  size_t used_ = 0;
};

}  // namespace focus::gpu
