// The emulated memory: a block's shared arrays, the device's, and copies under way between them.
#include <algorithm>
#include <map>

#include "cuda/simt/machine.h"
#include "error.h"

namespace focus::simt {

namespace {

constexpr unsigned char guard_byte = 0xA5;
constexpr size_t guard_bytes = 64;

std::map<const char*, size_t> allocated;  // of the device's memory: begin → bytes

}  // namespace

void check_guards() {
  for (size_t a = 0; a < block->shared.size(); ++a) {
    const unsigned char* end = block->shared[a].get() + block->shared_sizes[a];
    if (std::any_of(end, end + guard_bytes, [](unsigned char c) { return c != guard_byte; }))
      fail_run("kernel ", block->launch->kernel, ": a write past the end of shared array ", a + 1,
               " of ", block->shared_sizes[a], " bytes");
  }
}

void* shared_array(size_t bytes) {
  Thread& self = *block->running;
  if (self.arrays == block->shared.size()) {
    size_t total = bytes;
    for (size_t size : block->shared_sizes) total += (size + 15) / 16 * 16;
    if (total > block->launch->shared_bytes)
      fail_run("kernel ", block->launch->kernel, ": ", total,
               " bytes of shared memory, launched with ", block->launch->shared_bytes);
    block->shared.emplace_back(new unsigned char[bytes + guard_bytes]);
    std::memset(block->shared.back().get(), 0xFF, bytes);  // a NaN in every float
    std::memset(block->shared.back().get() + bytes, guard_byte, guard_bytes);
    block->shared_sizes.push_back(bytes);
  }
  const size_t a = self.arrays++;
  if (block->shared_sizes[a] != bytes)
    fail_run("kernel ", block->launch->kernel, ": shared array ", a + 1, " has ",
             block->shared_sizes[a], " bytes in one thread and ", bytes, " in another");
  return block->shared[a].get();
}

bool in_shared_memory(const void* at) {
  const auto* byte = static_cast<const unsigned char*>(at);
  for (size_t a = 0; a < block->shared.size(); ++a)
    if (byte >= block->shared[a].get() && byte < block->shared[a].get() + block->shared_sizes[a])
      return true;
  return false;
}

bool in_device_memory(const void* at) {
  const auto* byte = static_cast<const char*>(at);
  auto after = allocated.upper_bound(byte);
  return after != allocated.begin() && byte < std::prev(after)->first + std::prev(after)->second;
}

void add_device_memory(const void* begin, size_t bytes) {
  allocated[static_cast<const char*>(begin)] = bytes;
}

void remove_device_memory(const void* begin) {
  allocated.erase(static_cast<const char*>(begin));
}

void note_atomic(const void* at, size_t bytes) {
  if (instrument.access) instrument.access(at, bytes, true, true, __builtin_return_address(0));
}

void start_copy(void* to, const void* from, size_t bytes) {
  if (instrument.access) {
    const void* code = __builtin_return_address(0);
    instrument.access(from, bytes, false, false, code);
    instrument.access(to, bytes, true, false, code);
  }
  block->running->copies.back().push_back({to, from, bytes});
}

void commit_copies() {
  block->running->copies.emplace_back();
}

void wait_for_copies(size_t groups_left) {
  auto& groups = block->running->copies;
  while (groups.size() - 1 > groups_left) {
    for (const Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, copy.bytes);
    groups.erase(groups.begin());
  }
}

}  // namespace focus::simt
