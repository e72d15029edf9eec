// A function with a stack of its own, which can stop anywhere and be taken up again. A few lines of
// assembly on x86-64 Linux, elsewhere POSIX's ucontext, which does the same with two system calls.
// The address and the thread sanitizer are told about every change of stack.
#pragma once

#if !(defined(__linux__) && defined(__x86_64__))
#define FOCUS_UCONTEXT 1
#include <ucontext.h>
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FOCUS_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define FOCUS_TSAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define FOCUS_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define FOCUS_TSAN 1
#endif

#include <cstddef>

namespace focus::simt {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void start(void (*function)());  // prepares; whatever ran on this stack before is forgotten
  void enter();                    // runs the function until it leaves or returns
  void leave();                    // inside: back to whoever entered
  bool is_below_stack(const char* at) const { return at >= stack_ - 4096 && at < stack_ + 4096; }

 private:
  static void trampoline();

#ifdef FOCUS_UCONTEXT
  using Context = ucontext_t;
#else
  using Context = void*;  // the stack pointer; the registers lie on the stack
#endif
  static void switch_stack(Context& save, Context& load);

  Context inside_{}, outside_{};
  void (*function_)() = nullptr;
  char* stack_;
  size_t used_bytes_;           // of the stack, from its low end
  void* fake_stack_ = nullptr;  // the sanitizer's
  const void* outer_stack_ = nullptr;
  size_t outer_size_ = 0;
#ifdef FOCUS_TSAN
  void *tsan_fiber_ = nullptr, *tsan_outer_ = nullptr;
#endif
};

}  // namespace focus::simt
