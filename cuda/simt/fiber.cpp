#include "cuda/simt/fiber.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#ifdef FOCUS_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef FOCUS_TSAN
#include <sanitizer/tsan_interface.h>
// It keeps its own stack of calls for each fiber, on which a switch must leave nothing behind.
#define FOCUS_UNSEEN_BY_TSAN __attribute__((no_sanitize("thread")))
#else
#define FOCUS_UNSEEN_BY_TSAN
#endif

#ifndef FOCUS_UCONTEXT
// focus_switch_stack(void** save, void* load): keeps the registers that a function must preserve.
asm(R"(
.text
.type focus_switch_stack, @function
focus_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
extern "C" void focus_switch_stack(void** save, void* load);
#endif

namespace focus::simt {

namespace {

// Pages are taken when they are touched, so a large stack costs nothing. The lowest one may not be:
// a stack that overflows ends the program there, instead of another fiber's variables.
constexpr size_t stack_bytes = 256 * 1024, guard_bytes = 4096;
// Stacks that all began at a multiple of 4096 would share a few lines of the processor's caches.
constexpr size_t beginnings = 64, apart = 17 * 64;
size_t stacks_made = 0;

Fiber* entering = nullptr;

void before_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* stack,
                   [[maybe_unused]] size_t size) {
#ifdef FOCUS_ASAN
  __sanitizer_start_switch_fiber(fake_stack, stack, size);
#endif
}

void after_switch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** stack,
                  [[maybe_unused]] size_t* size) {
#ifdef FOCUS_ASAN
  __sanitizer_finish_switch_fiber(fake_stack, stack, size);
#endif
}

}  // namespace

Fiber::Fiber() {
  void* memory =
      mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  stack_ = static_cast<char*>(memory);
  mprotect(stack_, guard_bytes, PROT_NONE);
  used_bytes_ = stack_bytes - stacks_made++ % beginnings * apart;
#ifdef FOCUS_TSAN
  tsan_fiber_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
#ifdef FOCUS_ASAN
  __asan_unpoison_memory_region(stack_, stack_bytes);
#endif
#ifdef FOCUS_TSAN
  __tsan_destroy_fiber(tsan_fiber_);
#endif
  munmap(stack_, stack_bytes);
}

void Fiber::start(void (*function)()) {
#ifdef FOCUS_ASAN
  __asan_unpoison_memory_region(stack_, stack_bytes);
#endif
  function_ = function;
  fake_stack_ = nullptr;
#ifdef FOCUS_UCONTEXT
  getcontext(&inside_);
  inside_.uc_stack.ss_sp = stack_;
  inside_.uc_stack.ss_size = used_bytes_;
  inside_.uc_link = nullptr;
  makecontext(&inside_, trampoline, 0);
#else
  // As if the trampoline had called focus_switch_stack: six registers, then where to go on. A
  // function expects the stack 8 bytes beside a multiple of 16.
  void** top = reinterpret_cast<void**>(stack_ + used_bytes_) - 2;
  *top = reinterpret_cast<void*>(trampoline);
  std::fill(top - 6, top, nullptr);
  top[1] = nullptr;  // nobody called
  inside_ = top - 6;
#endif
}

FOCUS_UNSEEN_BY_TSAN void Fiber::switch_stack(Context& save, Context& load) {
#ifdef FOCUS_UCONTEXT
  swapcontext(&save, &load);
#else
  focus_switch_stack(&save, load);
#endif
}

FOCUS_UNSEEN_BY_TSAN void Fiber::trampoline() {
  Fiber* self = entering;
  after_switch(nullptr, &self->outer_stack_, &self->outer_size_);
  self->function_();
  before_switch(nullptr, self->outer_stack_, self->outer_size_);
#ifdef FOCUS_TSAN
  __tsan_switch_to_fiber(self->tsan_outer_, 0);
#endif
  switch_stack(self->inside_, self->outside_);
}

FOCUS_UNSEEN_BY_TSAN void Fiber::enter() {
  void* fake_stack = nullptr;
  entering = this;
  before_switch(&fake_stack, stack_, stack_bytes);
#ifdef FOCUS_TSAN
  tsan_outer_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(tsan_fiber_, 0);
#endif
  switch_stack(outside_, inside_);
  after_switch(fake_stack, nullptr, nullptr);
}

FOCUS_UNSEEN_BY_TSAN void Fiber::leave() {
  before_switch(&fake_stack_, outer_stack_, outer_size_);
#ifdef FOCUS_TSAN
  __tsan_switch_to_fiber(tsan_outer_, 0);
#endif
  switch_stack(inside_, outside_);
  after_switch(fake_stack_, &outer_stack_, &outer_size_);
}

}  // namespace focus::simt
