// A training step asks for no memory after the first: forward, backward, clip and optimiser.
#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <new>

#include "model_run.h"

// Every allocation of the test program goes through these and is counted. The arena's own blocks
// do not (it calls aligned_alloc): it counts them itself, see system_requests().
static std::atomic<long> allocations{0};

// Not inline, or the compiler sees that memory from new ends in free, and warns.
#define NOT_INLINE __attribute__((noinline))

NOT_INLINE void* operator new(size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size ? size : 1);
}
NOT_INLINE void* operator new(size_t size) {
  if (void* p = operator new(size, std::nothrow)) return p;
  throw std::bad_alloc();
}
NOT_INLINE void* operator new(size_t size, std::align_val_t alignment) {
  ++allocations;
  const size_t a = size_t(alignment);
  if (void* p = std::aligned_alloc(a, (size + a - 1) / a * a)) return p;
  throw std::bad_alloc();
}
// The array and nothrow forms of the library call the ones above and below.
NOT_INLINE void operator delete(void* p) noexcept {
  std::free(p);
}
NOT_INLINE void operator delete(void* p, size_t) noexcept {
  std::free(p);
}
NOT_INLINE void operator delete(void* p, std::align_val_t) noexcept {
  std::free(p);
}
NOT_INLINE void operator delete(void* p, size_t, std::align_val_t) noexcept {
  std::free(p);
}

using namespace focus;
using namespace focus::test;

TEST_CASE("the counter of allocations counts") {
  const long before = allocations.load();
  std::vector<double> grows(size_t(before % 7 + 10));
  CHECK(allocations.load() > before);
  CHECK(grows.size() >= 10);
}

TEST_CASE("training: a step allocates nothing after the first") {
  for (Pattern pattern : all_patterns)
    for (OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::adam})
      for (int threads : {1, 2}) {
        Training<float> t(medium_model(pattern, 0.1), kind, threads, 13);
        t.step(0.1);
        t.tape.reset(true);  // joins the arena's blocks: the last time it asks for memory
        const size_t requests = t.tape.arena().system_requests();
        const long before = allocations.load();
        double loss = 0;
        for (int i = 0; i < 4; ++i) loss = t.step(0.1);
        const long after = allocations.load();
        CHECK(after == before);
        CHECK(t.tape.arena().system_requests() == requests);
        CHECK(std::isfinite(loss));
      }
}
