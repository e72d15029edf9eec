// The threads that share the work inside one training step.
//
// Work is cut into pieces that each compute their own outputs, and the cut never depends on the
// number of threads: whichever thread takes a piece, the bytes are the same. Each thread begins
// with its own share of the pieces, so that the rows it wrote in one phase are still in its cache
// in the next, and then helps the others.
//
// A phase lasts 10 to 100 µs, less than the operating system needs to wake a thread, so idle
// threads spin for a while before they sleep. A helper that comes late, because its processor was
// given to another program, finds the phase closed and is not waited for.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace focus {

class Workers {
 public:
  // `threads` counts the calling thread too: Workers(1) starts none.
  explicit Workers(int threads = 1);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  int threads() const { return int(shares_.size()); }

  // Calls f(piece, thread) for piece = 0 … pieces-1, each once, and returns when all are done.
  // thread is in 0 … threads()-1: an index for scratch memory. An exception thrown by f is rethrown
  // here once the phase is over; the other pieces may or may not have run.
  template <class F>
  void run(int pieces, const F& f) {
    if (pieces <= 0) return;
    if (helpers_.empty() || pieces == 1) {
      for (int piece = 0; piece < pieces; ++piece) f(piece, 0);
      return;
    }
    call_ = [](const void* g, int piece, int thread) {
      (*static_cast<const F*>(g))(piece, thread);
    };
    function_ = &f;
    run_phase(pieces);
  }

  // Calls f(begin, end) for consecutive ranges of at most `grain` of 0 … n-1.
  template <class F>
  void run_ranges(int n, int grain, const F& f) {
    run((n + grain - 1) / grain,
        [&](int piece, int) { f(piece * grain, std::min(n, (piece + 1) * grain)); });
  }

 private:
  struct alignas(64) Share {  // of one thread, in a cache line of its own
    std::atomic<int> next{0};
    int end = 0;
  };

  // The gate tells helpers about the current phase: its number, whether it is open, and how many
  // helpers are inside.
  static constexpr uint64_t one_phase = uint64_t{1} << 32, open = uint64_t{1} << 31;
  static constexpr uint64_t inside = open - 1;

  void run_phase(int pieces);
  void take_pieces(int thread);
  void helper_loop(int thread);

  std::vector<Share> shares_;
  void (*call_)(const void*, int, int) = nullptr;
  const void* function_ = nullptr;
  std::mutex error_mutex_;
  std::exception_ptr error_;  // what a piece threw
  alignas(64) std::atomic<uint64_t> gate_{0};
  alignas(64) std::atomic<uint32_t> wake_{
      0};  // changes with each phase; sleeping helpers wait on it
  std::atomic<bool> stop_{false};
  std::vector<std::thread> helpers_;
};

}  // namespace focus
