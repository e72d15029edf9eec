#include "cuda/simt/emulator.h"

#include <algorithm>
#include <exception>
#include <map>
#include <memory>
#include <numeric>
#include <vector>

#include "cuda/simt/fiber.h"
#include "error.h"
#include "rng.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace focus::simt {

Instrument instrument;

namespace {

constexpr unsigned char guard_byte = 0xA5;
constexpr size_t guard_bytes = 64;

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Thread {
  Fiber fiber;
  dim3 index;
  int number;  // in the block; the lane is number % 32
  enum { ready, waiting, ended } state;
  // While waiting: for what, and where.
  Wait wait;
  unsigned mask;
  uint64_t brought;
  const char* file;
  int line;
  uint64_t received[32];                  // the last exchange's values
  size_t arrays;                          // how many shared arrays it has asked for
  std::vector<std::vector<Copy>> copies;  // groups, oldest first; the last is not yet committed
};

// The block that is running. One block runs at a time.
struct Block {
  const Launch* launch;
  const std::function<void()>* body;
  std::vector<Thread*> threads;
  Thread* running = nullptr;
  std::vector<std::unique_ptr<unsigned char[]>> shared;
  std::vector<size_t> shared_sizes;
  std::exception_ptr error;
};

Block* block = nullptr;
std::map<const char*, size_t> device_memory;  // begin → bytes
uint64_t order_seed = 0;
std::vector<std::unique_ptr<Thread>> pool;  // with their stacks, kept for the next launch

void run_thread() {
  try {
    (*block->body)();
  } catch (...) {
    block->error = std::current_exception();
  }
  block->running->state = Thread::ended;
}

void suspend() {
  Thread* self = block->running;
  self->fiber.leave();
  threadIdx = self->index;
}

std::string place(const Thread& t) {
  return str("thread (", t.index.x, ",", t.index.y, ",", t.index.z, ")");
}

std::string where(const char* file, int line) {
  return str("kernel ", block->launch->kernel, ", ", file, ":", line, ": ");
}

const char* name_of(Wait wait) {
  switch (wait) {
    case Wait::barrier:
      return "__syncthreads";
    case Wait::warp:
      return "__syncwarp";
    case Wait::shuffle:
      return "a shuffle";
    case Wait::ballot:
      return "a ballot";
    case Wait::match:
      return "__match_any_sync";
  }
  return "?";
}

bool at_same_place(const Thread& a, const Thread& b) {
  return a.state == Thread::waiting && b.state == Thread::waiting && a.wait == b.wait &&
         a.mask == b.mask && a.line == b.line &&
         (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

// The threads that a waiting thread waits for, itself included; missing lanes are nullptr.
std::vector<Thread*> partners(Thread& t) {
  if (t.wait == Wait::barrier) return block->threads;
  std::vector<Thread*> result;
  const size_t warp = size_t(t.number) / 32 * 32;
  for (size_t l = 0; l < 32; ++l)
    if (t.mask >> l & 1)
      result.push_back(warp + l < block->threads.size() ? block->threads[warp + l] : nullptr);
  return result;
}

// Lets go on whoever waits for nobody any more. False if that is no one.
bool release() {
  bool any = false, barrier_checked = false;
  for (Thread* t : block->threads) {
    if (t->state != Thread::waiting) continue;
    // One look at each group: the barrier's, and a mask's through its lowest lane.
    if (t->wait == Wait::barrier ? barrier_checked : t->number % 32 != __ffs(t->mask) - 1) continue;
    barrier_checked |= t->wait == Wait::barrier;
    const std::vector<Thread*> all = partners(*t);
    if (!std::all_of(all.begin(), all.end(), [&](Thread* o) { return o && at_same_place(*t, *o); }))
      continue;
    for (Thread* to : all) {
      if (t->wait != Wait::barrier)
        for (Thread* from : all) to->received[from->number % 32] = from->brought;
      to->state = Thread::ready;
    }
    any = true;
  }
  return any;
}

[[noreturn]] void report_stuck() {
  for (Thread* t : block->threads) {
    if (t->state != Thread::waiting) continue;
    const std::vector<Thread*> all = partners(*t);
    const auto there = std::count_if(all.begin(), all.end(),
                                     [&](Thread* o) { return o && at_same_place(*t, *o); });
    for (Thread* other : all) {
      if (other && at_same_place(*t, *other)) continue;
      const std::string elsewhere = !other ? std::string("a lane of its mask is not in the block")
                                    : other->state == Thread::ended
                                        ? str(place(*other), " has ended")
                                        : str(place(*other), " waits at ", name_of(other->wait),
                                              ", ", other->file, ":", other->line);
      fail_run(where(t->file, t->line), name_of(t->wait), " is reached by ", there, " of ",
               all.size(), " threads; ", elsewhere);
    }
  }
  fail_run("kernel ", block->launch->kernel, ": no thread can go on");
}

void check_guards() {
  for (size_t a = 0; a < block->shared.size(); ++a) {
    const unsigned char* end = block->shared[a].get() + block->shared_sizes[a];
    if (std::any_of(end, end + guard_bytes, [](unsigned char c) { return c != guard_byte; }))
      fail_run("kernel ", block->launch->kernel, ": a write past the end of shared array ", a + 1,
               " of ", block->shared_sizes[a], " bytes");
  }
}

void run_block(Rng* rng) {
  block->shared.clear(), block->shared_sizes.clear();
  for (Thread* t : block->threads) {
    t->state = Thread::ready;
    t->arrays = 0;
    t->copies.assign(1, {});
    t->fiber.start(run_thread);
  }
  const std::vector<Thread*>& threads = block->threads;
  const size_t n = threads.size();
  for (;;) {
    // Another order in each round: thread start + i·step, where step and n have no common factor.
    size_t start = 0, step = 1;
    if (rng) {
      start = rng->below(uint32_t(n));
      do step = 1 + rng->below(uint32_t(n));
      while (std::gcd(step, n) != 1);
    }
    for (size_t i = 0; i < n; ++i) {
      Thread* t = threads[(start + i * step) % n];
      if (t->state != Thread::ready) continue;
      block->running = t;
      threadIdx = t->index;
      t->fiber.enter();
      if (block->error) std::rethrow_exception(block->error);
    }
    const auto is = [&](auto state) { return [state](Thread* t) { return t->state == state; }; };
    if (std::all_of(threads.begin(), threads.end(), is(Thread::ended))) break;
    if (!release() && std::none_of(threads.begin(), threads.end(), is(Thread::ready)))
      report_stuck();
  }
  check_guards();
}

}  // namespace

void set_seed(uint64_t seed) {
  order_seed = seed;
}

void run_grid(const Launch& launch, const std::function<void()>& body) {
  Block running{};
  running.launch = &launch, running.body = &body;
  block = &running;
  blockDim = launch.block, gridDim = launch.grid;
  const dim3 b = launch.block, g = launch.grid;
  for (unsigned i = 0; i < b.x * b.y * b.z; ++i) {
    if (i == pool.size()) pool.push_back(std::make_unique<Thread>());
    running.threads.push_back(pool[i].get());
    running.threads.back()->index = {i % b.x, i / b.x % b.y, i / (b.x * b.y)};
    running.threads.back()->number = int(i);
  }
  Rng rng(order_seed, Stream::analysis);
  std::vector<unsigned> blocks(size_t{g.x} * g.y * g.z);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = unsigned(i);
  if (order_seed) rng.shuffle(blocks);
  for (unsigned i : blocks) {
    blockIdx = {i % g.x, i / g.x % g.y, i / (g.x * g.y)};
    run_block(order_seed ? &rng : nullptr);
    running.running = nullptr;
    if (instrument.block_ended) instrument.block_ended(launch, i == blocks.back());
  }
  block = nullptr;
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

void wait_for_block(const char* file, int line) {
  Thread& self = *block->running;
  self.state = Thread::waiting, self.wait = Wait::barrier, self.mask = 0;
  self.file = file, self.line = line;
  suspend();
}

bool any_in_block(bool predicate, const char* file, int line) {
  block->running->brought = predicate;
  wait_for_block(file, line);
  // Nobody brings anything else before all have looked.
  const bool any = std::any_of(block->threads.begin(), block->threads.end(),
                               [](const Thread* t) { return t->brought != 0; });
  wait_for_block(file, line);
  return any;
}

const uint64_t* exchange(Wait kind, unsigned mask, uint64_t mine, const char* file, int line) {
  Thread& self = *block->running;
  if (!(mask >> lane() & 1)) report("the calling lane is not in the mask", lane(), file, line);
  self.state = Thread::waiting, self.wait = kind, self.mask = mask, self.brought = mine;
  self.file = file, self.line = line;
  suspend();
  return self.received;
}

void maybe_yield() {
  // The fiber stays ready: the next round of the scheduler, in another order, takes it up again.
  if (order_seed) suspend();
}

int lane() {
  return block->running->number % 32;
}

void report(const char* what, int other_lane, const char* file, int line) {
  fail_run(where(file, line), what, ": ", place(*block->running), ", lane ", other_lane);
}

int running_thread() {
  return block && block->running ? block->running->number : -1;
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
  auto after = device_memory.upper_bound(byte);
  return after != device_memory.begin() &&
         byte < std::prev(after)->first + std::prev(after)->second;
}

void add_device_memory(const void* begin, size_t bytes) {
  device_memory[static_cast<const char*>(begin)] = bytes;
}

void remove_device_memory(const void* begin) {
  device_memory.erase(static_cast<const char*>(begin));
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
