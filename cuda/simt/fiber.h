// A function with a stack of its own, which can stop anywhere and be taken up again (POSIX
// ucontext). The address sanitizer is told about every change of stack.
#pragma once

#include <ucontext.h>

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

  ucontext_t inside_{}, outside_{};
  void (*function_)() = nullptr;
  char* stack_;
  void* fake_stack_ = nullptr;  // the sanitizer's
  const void* outer_stack_ = nullptr;
  size_t outer_size_ = 0;
};

}  // namespace focus::simt
