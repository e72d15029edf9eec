// The emulator's insides: what its scheduler (emulator.cpp) and its memory (memory.cpp) share.
#pragma once

#include <exception>
#include <memory>
#include <vector>

#include "cuda/simt/emulator.h"
#include "cuda/simt/fiber.h"

namespace focus::simt {

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
  WarpWork work;  // of Wait::matrix, with `brought`, an address
  const char* file;
  int line;
  uint64_t received[32];                  // the last exchange's values
  size_t arrays;                          // how many shared arrays it has asked for
  std::vector<std::vector<Copy>> copies;  // groups, oldest first; the last is not yet committed
};

struct Block {
  const Launch* launch;
  const std::function<void()>* body;
  dim3 index;
  std::vector<Thread*> threads;
  Thread* running = nullptr;
  std::vector<std::unique_ptr<unsigned char[]>> shared;
  std::vector<size_t> shared_sizes;
  std::exception_ptr error;
  Thread* spinning = nullptr;  // the last one that waited for other blocks
};

extern Block* block;  // the one that is running

void check_guards();  // RunError if the running block has written past the end of a shared array

}  // namespace focus::simt
