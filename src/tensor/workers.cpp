#include "tensor/workers.h"

#include <system_error>
#include <utility>

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

Workers::Workers(int threads) : shares_(size_t(std::max(1, threads))) {
  try {
    for (int t = 1; t < threads; ++t) helpers_.emplace_back([this, t] { helper_loop(t); });
  } catch (const std::system_error&) {
    // The system gives no more threads: those that exist take over the shares of the others.
  }
}

Workers::~Workers() {
  stop_.store(true);
  wake_.fetch_add(1);
  wake_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void Workers::take_pieces(int thread) {
  const size_t n = shares_.size();
  for (size_t i = 0; i < n; ++i) {
    Share& share = shares_[(size_t(thread) + i) % n];
    for (int piece; (piece = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) {
      try {
        call_(function_, piece, thread);
      } catch (...) {  // the calling thread throws it again; of several, one
        const std::lock_guard lock(error_mutex_);
        error_ = std::current_exception();
      }
    }
  }
}

void Workers::run_phase(int pieces) {
  const int n = threads();
  for (int t = 0; t < n; ++t) {
    shares_[size_t(t)].next.store(int(int64_t{pieces} * t / n), std::memory_order_relaxed);
    shares_[size_t(t)].end = int(int64_t{pieces} * (t + 1) / n);
  }
  // Opening publishes the phase's description to the helpers that enter.
  const uint64_t phase = gate_.load(std::memory_order_relaxed) / one_phase + 1;
  gate_.store(phase * one_phase | open, std::memory_order_release);
  wake_.fetch_add(1, std::memory_order_release);
  wake_.notify_all();
  take_pieces(0);
  // All pieces are taken. Nobody enters any more; those inside finish theirs, and by leaving
  // publish what they wrote.
  gate_.fetch_and(~open, std::memory_order_acq_rel);
  for (int i = 0; gate_.load(std::memory_order_acquire) & inside; ++i)
    i < spins ? relax() : std::this_thread::yield();
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Workers::helper_loop(int thread) {
  uint64_t last_phase = 0;
  for (int idle = 0;; ++idle) {
    const uint32_t wake = wake_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_acquire)) return;
    uint64_t gate = gate_.load(std::memory_order_acquire);
    if ((gate & open) && gate / one_phase != last_phase) {
      if (!gate_.compare_exchange_strong(gate, gate + 1, std::memory_order_acq_rel)) continue;
      last_phase = gate / one_phase;
      take_pieces(thread);
      gate_.fetch_sub(1, std::memory_order_release);
      idle = 0;
    } else if (idle < spins) {
      relax();
    } else {
      wake_.wait(wake, std::memory_order_acquire);
      idle = 0;
    }
  }
}

}  // namespace focus
