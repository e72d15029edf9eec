// The emulated memory: a block's shared arrays, the device's, and copies under way between them.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <map>
#include <new>

#include "cuda/simt/machine.h"
#include "error.h"

namespace focus::simt {

namespace {

// What lies beside an array, for finding who wrote there; who reads it reads a NaN.
constexpr uint32_t guard_word = 0xFFA5A5A5;
constexpr size_t guard_bytes = 64;

uint8_t guard_byte(size_t from_end) {
  return uint8_t(guard_word >> 8 * ((4 - from_end % 4) % 4));
}

void write_guard(void* at, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) static_cast<unsigned char*>(at)[i] = guard_byte(bytes - i);
}

// Of few bytes: it is asked after every launch.
bool is_guard(const void* at, size_t bytes) {
  static const auto words = [] {
    std::array<unsigned char, 256> all;
    write_guard(all.data(), all.size());
    return all;
  }();
  return std::memcmp(at, words.data() + words.size() - bytes, bytes) == 0;
}

// An array of the device's memory ends where a page begins that nobody may touch, and there is
// another one before it. Between the array and these pages, where it is no multiple of the
// alignment long, or of a page, there are guard words.
struct Array {
  size_t bytes, element;
  char *pages = nullptr, *end = nullptr;  // of the memory with the forbidden pages
};

constexpr size_t page = 4096, forbidden = size_t{1} << 18;
std::map<const char*, Array> arrays;  // by their beginning

const char* readable_end(const Array& a) {
  return a.end - forbidden;
}
size_t guard_before(const char* begin, const Array& a) {
  return std::min(guard_bytes, size_t(begin - a.pages) - forbidden);
}

}  // namespace

void check_guards() {
  for (size_t a = 0; a < block->shared.size(); ++a) {
    if (!is_guard(block->shared[a].get() + block->shared_sizes[a], guard_bytes))
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
    write_guard(block->shared.back().get() + bytes, guard_bytes);
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
  auto after = arrays.upper_bound(byte);
  return after != arrays.begin() && byte < std::prev(after)->first + std::prev(after)->second.bytes;
}

size_t& array_alignment() {
  static size_t bytes = 16;
  return bytes;
}

void* new_array(size_t bytes, size_t element) {
  const size_t alignment = array_alignment();
  Array array{bytes, element};
  char* begin;
#ifdef FOCUS_ASAN  // finds more, and says where
  begin = static_cast<char*>(::operator new (bytes, std::align_val_t{256}));
#else
  const size_t aligned = (bytes + alignment - 1) / alignment * alignment;
  const size_t inside = (std::max<size_t>(aligned, 1) + page - 1) / page * page;
  void* memory = mmap(nullptr, inside + 2 * forbidden, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  array.pages = static_cast<char*>(memory), array.end = array.pages + inside + 2 * forbidden;
  if (mprotect(array.pages + forbidden, inside, PROT_READ | PROT_WRITE) != 0) {
    munmap(memory, inside + 2 * forbidden);
    throw std::bad_alloc();
  }
  begin = array.end - forbidden - aligned;
  write_guard(array.pages + forbidden, size_t(begin - array.pages) - forbidden);
  write_guard(begin + bytes, size_t(readable_end(array) - begin) - bytes);
#endif
  arrays[begin] = array;
  return begin;
}

void delete_array(void* begin) noexcept {
  const auto one = arrays.find(static_cast<char*>(begin));
  if (one == arrays.end()) return;
#ifdef FOCUS_ASAN
  ::operator delete (begin, std::align_val_t{256});
#else
  munmap(one->second.pages, size_t(one->second.end - one->second.pages));
#endif
  arrays.erase(one);
}

void check_device_memory(const char* kernel) {
  for (const auto& [begin, array] : arrays) {
    if (!array.pages) continue;
    const size_t before = guard_before(begin, array),
                 after = size_t(readable_end(array) - begin) - array.bytes;
    const bool front = is_guard(begin - before, before),
               back = is_guard(begin + array.bytes, after);
    if (front && back) continue;
    write_guard(const_cast<char*>(begin) - before, before);
    write_guard(const_cast<char*>(begin) + array.bytes, after);
    fail_run("kernel ", kernel, ": somebody writes ",
             front ? "past the end" : "before the beginning", " of an array of ",
             array.bytes / array.element, " in global memory");
  }
}

std::string index_of(const char* at) {
  const auto next = arrays.upper_bound(at);
  const auto text = [&](const auto& one) {
    const auto& [begin, array] = *one;
    const ptrdiff_t bytes = at - begin, element = ptrdiff_t(array.element);
    const ptrdiff_t index = (bytes < 0 ? bytes - element + 1 : bytes) / element;
    return str("index ", index, " of an array of ", array.bytes / array.element);
  };
  if (next != arrays.begin() && std::prev(next)->second.pages && at < std::prev(next)->second.end)
    return text(std::prev(next));
  if (next != arrays.end() && next->second.pages && at >= next->second.pages) return text(next);
  return "";
}

void note_atomic(const void* at, size_t bytes) {
  if (recording) note_act('a');
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
