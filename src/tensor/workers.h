// The threads that share the work inside one training step.
//
// Work is cut into pieces that each compute their own outputs, and the cut never depends on the
// number of threads: whichever thread takes a piece, the bytes are the same. A phase lasts 10 to
// 100 µs, less than the operating system needs to wake a thread, so idle threads spin for a while
// before they sleep.
#pragma once

#include <algorithm>
#include <atomic>
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

  int threads() const { return int(helpers_.size()) + 1; }

  // Calls f(piece, thread) for piece = 0 … pieces-1, each once, and returns when all are done.
  // thread is in 0 … threads()-1: an index for scratch memory. f must not throw.
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
    share(pieces);
  }

  // Calls f(begin, end) for consecutive ranges of at most `grain` of 0 … n-1.
  template <class F>
  void run_ranges(int n, int grain, const F& f) {
    run((n + grain - 1) / grain,
        [&](int piece, int) { f(piece * grain, std::min(n, (piece + 1) * grain)); });
  }

 private:
  void share(int pieces);
  void take_pieces(int thread);
  void helper_loop(int thread);

  std::vector<std::thread> helpers_;
  void (*call_)(const void*, int, int) = nullptr;
  const void* function_ = nullptr;
  int pieces_ = 0;
  alignas(64) std::atomic<int> next_piece_{0};
  alignas(64) std::atomic<int> busy_helpers_{0};
  alignas(64) std::atomic<unsigned> phase_{0};  // counts phases; helpers wait for it to change
  std::atomic<bool> stop_{false};
};

}  // namespace focus
