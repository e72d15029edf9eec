// A function with a stack of its own, which can stop anywhere and be taken up again. A few lines of
// assembly on x86-64 Linux, elsewhere POSIX's ucontext, which does the same with two system calls.
// The address and the thread sanitizer are told about every change of stack.
#pragma once

#if !(defined(__linux__) && defined(__x86_64__))
#define FOCUS_UCONTEXT 1
#include <ucontext.h>
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
  void* fake_stack_ = nullptr;  // the sanitizer's
  const void* outer_stack_ = nullptr;
  size_t outer_size_ = 0;
  [[maybe_unused]] void *tsan_fiber_ = nullptr, *tsan_outer_ = nullptr;
};

}  // namespace focus::simt
