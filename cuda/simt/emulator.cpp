#include "cuda/simt/emulator.h"

#include <algorithm>
#include <array>
#include <exception>
#include <map>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "cuda/simt/machine.h"
#include "error.h"
#include "rng.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace focus::simt {

Instrument instrument;
Block* block = nullptr;
bool recording = false;

std::string place(const Thread& t) {
  return str("thread (", t.index.x, ",", t.index.y, ",", t.index.z, ")");
}

namespace {

uint64_t order_seed = 0;
uint64_t events = 0;                                   // counts what threads do, spinning excepted
std::map<std::pair<unsigned, int>, std::string> acts;  // by block and thread
std::vector<std::unique_ptr<Thread>> pool;  // with their stacks, kept for the next launch

void run_thread() {
  try {
    (*block->body)();
  } catch (...) {
    block->error = std::current_exception();
  }
  block->running->state = Thread::ended;
  ++events;
}

void suspend() {
  Thread* self = block->running;
  self->fiber.leave();
  threadIdx = self->index;
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
    case Wait::matrix:
      return "a matrix product";
  }
  return "?";
}

bool at_same_place(const Thread& a, const Thread& b) {
  return a.state == Thread::waiting && b.state == Thread::waiting && a.wait == b.wait &&
         a.mask == b.mask && a.line == b.line &&
         (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

// The threads that a waiting thread waits for, itself included; missing lanes are nullptr.
class Partners {
 public:
  explicit Partners(const Thread& t) {
    if (t.wait == Wait::barrier) {
      all_ = block->threads;
      return;
    }
    const size_t warp = size_t(t.number) / 32 * 32;
    size_t count = 0;
    for (size_t l = 0; l < 32; ++l)
      if (t.mask >> l & 1)
        lanes_[count++] = warp + l < block->threads.size() ? block->threads[warp + l] : nullptr;
    all_ = std::span(lanes_).first(count);
  }
  Partners(const Partners&) = delete;
  Partners& operator=(const Partners&) = delete;
  auto begin() const { return all_.begin(); }
  auto end() const { return all_.end(); }
  size_t size() const { return all_.size(); }

 private:
  std::array<Thread*, 32> lanes_;
  std::span<Thread* const> all_;
};

// Lets go on whoever waits for nobody any more. False if that is no one.
bool release() {
  bool any = false, barrier_checked = false;
  for (Thread* t : block->threads) {
    if (t->state != Thread::waiting) continue;
    // One look at each group: the barrier's, and a mask's through its lowest lane.
    if (t->wait == Wait::barrier ? barrier_checked : t->number % 32 != __ffs(t->mask) - 1) continue;
    barrier_checked |= t->wait == Wait::barrier;
    const Partners all(*t);
    if (!std::all_of(all.begin(), all.end(), [&](Thread* o) { return o && at_same_place(*t, *o); }))
      continue;
    if (t->wait == Wait::matrix) {
      void* lanes[32];
      std::ranges::transform(all, lanes,
                             [](Thread* o) { return reinterpret_cast<void*>(o->brought); });
      t->work(lanes);
    }
    if (t->wait != Wait::barrier && t->wait != Wait::matrix) {
      std::array<uint64_t, 32> brought = {};
      for (Thread* from : all) brought[size_t(from->number % 32)] = from->brought;
      for (Thread* to : all) to->received = brought;
    }
    for (Thread* to : all) to->state = Thread::ready;
    any = true;
  }
  return any;
}

[[noreturn]] void report_stuck() {
  for (Thread* t : block->threads) {
    if (t->state != Thread::waiting) continue;
    const Partners all(*t);
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

void start(Block& b) {
  for (Thread* t : b.threads) {
    t->state = Thread::ready;
    t->arrays = 0;
    t->copies.assign(1, {});
    t->fiber.start(run_thread);
  }
}

// Every thread that can go on runs until it must wait. False when all have ended.
bool run_round(Block& b, Rng* rng) {
  block = &b, blockIdx = b.index;
  const std::vector<Thread*>& threads = b.threads;
  const size_t n = threads.size();
  // Another order in each round: thread start + i·step, where step and n have no common factor.
  size_t start = 0, step = 1;
  if (rng) {
    start = rng->below(uint32_t(n));
    do step = 1 + rng->below(uint32_t(n));
    while (std::gcd(step, n) != 1);
  }
  for (size_t i = 0, at = start; i < n; ++i, at += step) {
    if (at >= n) at -= n;
    Thread* t = threads[at];
    if (t->state != Thread::ready) continue;
    b.running = t;
    threadIdx = t->index;
    t->fiber.enter();
    b.running = nullptr;
    throw_fault();
    if (b.error) std::rethrow_exception(b.error);
  }
  const auto is = [&](auto state) { return [state](Thread* t) { return t->state == state; }; };
  if (std::all_of(threads.begin(), threads.end(), is(Thread::ended))) {
    check_guards();
    return false;
  }
  if (!release() && std::none_of(threads.begin(), threads.end(), is(Thread::ready))) report_stuck();
  return true;
}

// Rounds of these blocks until all have ended. In another order than the natural one a block
// starves until the others cannot go on without it, then another one: a wait must not count on
// being looked at in time.
void run_together(std::vector<Block>& blocks, Rng* rng) {
  std::vector<Block*> open;
  for (Block& b : blocks) start(b), open.push_back(&b);
  Block* starving = nullptr;
  while (!open.empty()) {
    if (rng && !starving) starving = open[rng->below(uint32_t(open.size()))];
    const uint64_t before = events;
    std::erase_if(open, [&](Block* b) { return b != starving && !run_round(*b, rng); });
    if (events != before) continue;
    if (starving && !run_round(*starving, rng)) std::erase(open, starving);
    starving = nullptr;
    if (events != before || open.empty()) continue;
    // Nobody did anything but look whether another block had come.
    for (Block* b : open)
      if (block = b; b->spinning)
        fail_run(
            where(b->spinning->file, b->spinning->line), "block ", b->index.x,
            " waits for another block, which never comes",
            blocks.size() == 1 ? " (blocks run one after another, unless launched together)" : "");
  }
}

}  // namespace

void set_seed(uint64_t seed) {
  order_seed = seed;
}

void run_grid(const Launch& launch, const std::function<void()>& body) {
  const FaultHandler handler;
  const struct NoBlock {
    ~NoBlock() { block = nullptr; }
  } afterwards;
  blockDim = launch.block, gridDim = launch.grid;
  const dim3 b = launch.block, g = launch.grid;
  const size_t threads = size_t{b.x} * b.y * b.z;
  Rng rng(order_seed, Stream::analysis);
  std::vector<unsigned> order(size_t{g.x} * g.y * g.z);
  std::iota(order.begin(), order.end(), 0u);
  if (order_seed) rng.shuffle(order);
  const size_t at_once = launch.together ? order.size() : 1;
  for (size_t first = 0; first < order.size(); first += at_once) {
    std::vector<Block> blocks(at_once);
    for (size_t n = 0; n < at_once; ++n) {
      const unsigned i = order[first + n];
      blocks[n].launch = &launch, blocks[n].body = &body;
      blocks[n].index = {i % g.x, i / g.x % g.y, i / (g.x * g.y)};
      for (unsigned t = 0; t < threads; ++t) {
        if (n * threads + t == pool.size()) pool.push_back(std::make_unique<Thread>());
        Thread* thread = pool[n * threads + t].get();
        thread->index = {t % b.x, t / b.x % b.y, t / (b.x * b.y)};
        thread->number = int(t);
        blocks[n].threads.push_back(thread);
      }
    }
    run_together(blocks, order_seed ? &rng : nullptr);
    if (instrument.block_ended && !launch.together)
      instrument.block_ended(launch, first + 1 == order.size());
  }
  check_device_memory(launch.kernel);
}

void wait_for_block(const char* file, int line) {
  Thread& self = *block->running;
  self.state = Thread::waiting, self.wait = Wait::barrier, self.mask = 0;
  self.file = file, self.line = line;
  ++events;
  suspend();
}

int take_turn(const char* file, int line, int turn) {
  Thread& self = *block->running;
  self.file = file, self.line = line;
  block->spinning = &self;
  if (recording) note_act('s');
  suspend();
  return turn;
}

void record_acts() {
  recording = true;
  acts.clear();
}

std::string acts_of(unsigned block_index, int thread) {
  return acts[{block_index, thread}];
}

void note_act(char act) {
  if (block && block->running) acts[{block->index.x, block->running->number}] += act;
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
  if (recording) note_act("?whbmx"[int(kind)]);
  self.file = file, self.line = line;
  ++events;
  suspend();
  return self.received.data();
}

void warp_works(WarpWork work, void* mine, const char* file, int line) {
  block->running->work = work;
  exchange(Wait::matrix, ~0u, reinterpret_cast<uint64_t>(mine), file, line);
}

void maybe_yield() {
  ++events;
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

}  // namespace focus::simt
