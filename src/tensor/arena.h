// Memory that is handed out piece by piece and taken back all at once.
//
// A training step makes hundreds of tensors, the same ones each time. The arena gives them
// consecutive memory and forgets them all when the step ends. The first step grows it block by
// block; reset() then joins the blocks into one that is large enough, so later steps ask the system
// for nothing.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

namespace focus {

class Arena {
 public:
  static constexpr size_t alignment = 64;  // a cache line, and the widest vector

  // `count` numbers, uninitialised (all bits set, which reads as NaN, in builds without NDEBUG, so
  // that a forgotten write shows). Throws std::bad_alloc when the system has no memory left.
  template <class T>
  T* allocate(size_t count) {
    static_assert(std::is_trivially_destructible_v<T>, "the arena runs no destructors");
    if (count > (size_t{1} << 46) / sizeof(T)) throw std::bad_array_new_length();
    void* memory = allocate_bytes(count * sizeof(T));
#ifndef NDEBUG
    std::memset(memory, 0xff, count * sizeof(T));
#endif
    return static_cast<T*>(memory);
  }

  // Takes everything back.
  void reset() {
    if (blocks_.size() > 1) {
      size_t total = 0;
      for (const Block& block : blocks_) total += block.size;
      blocks_.clear();
      add_block(total);
    }
    used_ = 0;
  }

  // Requests made to the system so far: constant once the arena has seen its largest step.
  size_t system_requests() const {
    return system_requests_;
  }
  // Bytes held.
  size_t capacity() const {
    size_t total = 0;
    for (const Block& block : blocks_) total += block.size;
    return total;
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  using Memory = std::unique_ptr<std::byte, Free>;
  struct Block {
    Memory memory;
    size_t size;
  };

  void* allocate_bytes(size_t bytes) {
    bytes = (bytes + alignment - 1) / alignment * alignment;
    if (blocks_.empty() || used_ + bytes > blocks_.back().size)
      add_block(std::max(bytes, size_t{1} << 20));
    void* p = blocks_.back().memory.get() + used_;
    used_ += bytes;
    return p;
  }

  void add_block(size_t size) {
    Memory memory(static_cast<std::byte*>(std::aligned_alloc(alignment, size)));
    if (!memory) throw std::bad_alloc();
    blocks_.push_back({std::move(memory), size});
    used_ = 0;
    ++system_requests_;
  }

  std::vector<Block> blocks_;
  size_t used_ = 0;  // of the last block
  size_t system_requests_ = 0;
};

}  // namespace focus
