// The emulator's insides: what its scheduler (emulator.cpp) and its memory (memory.cpp) share.
#pragma once

#include <array>
#include <exception>
#include <memory>
#include <string>
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
  std::array<uint64_t, 32> received;      // the last exchange's values, by lane
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

std::string place(const Thread& thread);  // "thread (3,0,0)"

void check_guards();  // RunError if the running block has written past the end of a shared array
// RunError if something beside an array of the device's memory has been written.
void check_device_memory(const char* kernel);

// An address as a place in the device's memory: "index 12 of an array of 10". What is near no array
// is "".
std::string index_of(const char* at);

// While it exists, a thread that touches memory where there is none ends, and throw_fault throws a
// RunError that says which and where. (fault.cpp)
class FaultHandler {
 public:
  FaultHandler();
  ~FaultHandler();
  FaultHandler(const FaultHandler&) = delete;
  FaultHandler& operator=(const FaultHandler&) = delete;
};
void throw_fault();  // nothing if there was none

}  // namespace focus::simt
