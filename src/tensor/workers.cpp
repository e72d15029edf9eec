#include "tensor/workers.h"

namespace focus {

namespace {

// How often an idle thread looks before it gives its processor away; about 50 µs.
constexpr int spins = 2000;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Workers::Workers(int threads) {
  for (int t = 1; t < threads; ++t) helpers_.emplace_back([this, t] { helper_loop(t); });
}

Workers::~Workers() {
  stop_.store(true);
  phase_.fetch_add(1);
  phase_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void Workers::take_pieces(int thread) {
  for (int piece; (piece = next_piece_.fetch_add(1, std::memory_order_relaxed)) < pieces_;)
    call_(function_, piece, thread);
}

void Workers::share(int pieces) {
  pieces_ = pieces;
  next_piece_.store(0, std::memory_order_relaxed);
  busy_helpers_.store(int(helpers_.size()), std::memory_order_relaxed);
  phase_.fetch_add(1, std::memory_order_release);  // publishes all of the above
  phase_.notify_all();
  take_pieces(0);
  // Every helper must have left this phase before the next one may overwrite its description.
  for (int i = 0; busy_helpers_.load(std::memory_order_acquire) > 0; ++i)
    i < spins ? relax() : std::this_thread::yield();
}

void Workers::helper_loop(int thread) {
  for (unsigned seen = 0;;) {
    for (int i = 0; i < spins && phase_.load(std::memory_order_acquire) == seen; ++i) relax();
    phase_.wait(seen, std::memory_order_acquire);
    ++seen;  // never behind by more than one: share() waits for all helpers
    if (stop_.load()) return;
    take_pieces(thread);
    busy_helpers_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace focus
