#include "cuda/simt/count.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "cuda/simt/emulator.h"
#include "error.h"

namespace focus::simt {

Traffic& Traffic::operator+=(const Traffic& other) {
  global_requests += other.global_requests, global_lines += other.global_lines;
  global_bytes += other.global_bytes, distinct_bytes += other.distinct_bytes;
  shared_requests += other.shared_requests, shared_cycles += other.shared_cycles;
  atomics += other.atomics, shared_atomics += other.shared_atomics;
  return *this;
}

namespace {

struct Bytes {
  uint64_t at;
  unsigned count;
};

// What each thread of the running block has done at one place of the code, in order.
struct Place {
  bool shared, atomic;
  std::vector<std::vector<Bytes>> of_thread;
};

struct Last {  // a thread's last access
  const void* place = nullptr;
  Bytes* bytes = nullptr;
  bool write = false;
};

// Cache lines are counted as they lie on a GPU.
[[maybe_unused]] const size_t as_on_a_gpu = array_alignment() = 256;

bool counting = false;
std::unordered_map<const void*, Place> places;  // of the running block; one for each memory
std::vector<Last> lasts;
std::vector<KernelTraffic> kernels;
std::unordered_set<uint64_t> sectors;  // of the running launch

// How many different 128-byte lines.
int lines_of(const std::vector<Bytes>& request) {
  std::vector<uint64_t> lines;
  for (const Bytes& b : request)
    for (uint64_t line = b.at / 128; line <= (b.at + b.count - 1) / 128; ++line)
      if (std::find(lines.begin(), lines.end(), line) == lines.end()) lines.push_back(line);
  return int(lines.size());
}

// How many different 4-byte words the busiest bank has to give.
int cycles_of(const std::vector<Bytes>& request) {
  std::vector<uint64_t> words[32];
  size_t most = 0;
  for (const Bytes& b : request)
    for (uint64_t word = b.at / 4; word <= (b.at + b.count - 1) / 4; ++word) {
      std::vector<uint64_t>& bank = words[word % 32];
      if (std::find(bank.begin(), bank.end(), word) == bank.end()) bank.push_back(word);
      most = std::max(most, bank.size());
    }
  return int(most);
}

void add_request(const Place& place, const std::vector<Bytes>& request, Traffic& sum) {
  if (place.atomic) {
    ++(place.shared ? sum.shared_atomics : sum.atomics);
  } else if (place.shared) {
    ++sum.shared_requests;
    sum.shared_cycles += uint64_t(cycles_of(request));
  } else {
    ++sum.global_requests;
    sum.global_lines += uint64_t(lines_of(request));
    for (const Bytes& b : request) sum.global_bytes += b.count;
  }
  if (place.shared) return;
  for (const Bytes& b : request)
    for (uint64_t s = b.at / 32; s <= (b.at + b.count - 1) / 32; ++s)
      if (sectors.insert(s).second) sum.distinct_bytes += 32;
}

KernelTraffic& kernel_named(const char* name) {
  for (KernelTraffic& k : kernels)
    if (k.kernel == name) return k;
  return kernels.emplace_back(KernelTraffic{name, 0, {}});
}

// Puts together what the warps' threads did.
void block_ended(const Launch& launch, bool last_block) {
  if (!counting) return;
  KernelTraffic& kernel = kernel_named(launch.kernel);
  std::vector<Bytes> request;
  for (const auto& [code, place] : places)
    for (size_t warp = 0; warp < place.of_thread.size(); warp += 32) {
      const size_t end = std::min(warp + 32, place.of_thread.size());
      for (size_t time = 0;; ++time) {
        request.clear();
        for (size_t t = warp; t < end; ++t)
          if (time < place.of_thread[t].size()) request.push_back(place.of_thread[t][time]);
        if (request.empty()) break;
        add_request(place, request, kernel.traffic);
      }
    }
  places.clear(), lasts.clear();
  if (last_block) ++kernel.launches, sectors.clear();
}

// `code`: where in the program.
void access(const void* at, size_t bytes, bool write, bool atomic, const void* code) {
  const int thread = running_thread();
  if (!counting || thread < 0) return;
  const bool shared = in_shared_memory(at);
  if (!shared && !in_device_memory(at)) return;  // a register, that is, the thread's own stack
  if (size_t(thread) >= lasts.size()) lasts.resize(size_t(thread) + 1);
  Last& last = lasts[size_t(thread)];
  const uint64_t address = reinterpret_cast<uint64_t>(at);
  // The compiler may cut a vector of 8 or 16 bytes into its numbers; here they become one again.
  if (last.bytes && last.place != code && last.write == write && !atomic &&
      last.bytes->at + last.bytes->count == address && last.bytes->at / 16 == address / 16 &&
      (address + bytes - 1) / 16 == address / 16) {
    last.bytes->count += unsigned(bytes);
    last.place = code;
    return;
  }
  // One instruction that meets both memories is two.
  Place& place = places[static_cast<const char*>(code) + shared];
  place.shared = shared, place.atomic = atomic;
  if (size_t(thread) >= place.of_thread.size()) place.of_thread.resize(size_t(thread) + 1);
  std::vector<Bytes>& all = place.of_thread[size_t(thread)];
  all.push_back({address, unsigned(bytes)});
  last = {code, &all.back(), write};
}

}  // namespace

std::vector<KernelTraffic> take_traffic() {
#if defined(__SANITIZE_THREAD__)
  fail_run("counting accesses and MODE=tsan exclude each other");
#endif
  instrument = {access, block_ended};
  counting = true;
  std::vector<KernelTraffic> result;
  result.swap(kernels);
  return result;
}

}  // namespace focus::simt

// --- what the compiler calls (gcc and clang, -fsanitize=thread) ----------------------------------

#if !defined(__SANITIZE_THREAD__)
extern "C" {
#define FOCUS_COUNT(bytes)                                                     \
  void __tsan_read##bytes(void* at) {                                          \
    focus::simt::access(at, bytes, false, false, __builtin_return_address(0)); \
  }                                                                            \
  void __tsan_write##bytes(void* at) {                                         \
    focus::simt::access(at, bytes, true, false, __builtin_return_address(0));  \
  }                                                                            \
  void __tsan_unaligned_read##bytes(void* at) {                                \
    focus::simt::access(at, bytes, false, false, __builtin_return_address(0)); \
  }                                                                            \
  void __tsan_unaligned_write##bytes(void* at) {                               \
    focus::simt::access(at, bytes, true, false, __builtin_return_address(0));  \
  }
FOCUS_COUNT(1)
FOCUS_COUNT(2)
FOCUS_COUNT(4)
FOCUS_COUNT(8)
FOCUS_COUNT(16)
#undef FOCUS_COUNT
void __tsan_read_range(void* at, size_t bytes) {
  focus::simt::access(at, bytes, false, false, __builtin_return_address(0));
}
void __tsan_write_range(void* at, size_t bytes) {
  focus::simt::access(at, bytes, true, false, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
#endif
