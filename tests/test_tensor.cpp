// Shapes, their error messages, and the arena.
#include <doctest/doctest.h>

#include <cstring>
#include <set>

#include "tensor/arena.h"
#include "tensor/tensor.h"

using namespace focus;

namespace {

template <class F>
std::string input_error(const F& f) {
  try {
    f();
  } catch (const InputError& e) {
    return e.what();
  }
  return "no InputError";
}

}  // namespace

TEST_CASE("a shape knows its size, rows and text") {
  const Shape s{25, 40, 63};
  CHECK(s.rank() == 3);
  CHECK(s.size() == 25 * 40 * 63);
  CHECK(s.rows() == 1000);
  CHECK(s.last() == 63);
  CHECK(s[1] == 40);
  CHECK(s.text() == "[25, 40, 63]");
  CHECK(s.with_last(7) == Shape{25, 40, 7});
  CHECK(Shape{}.size() == 1);
  CHECK(Shape{}.text() == "[]");
  CHECK(Shape{3, 0}.size() == 0);
  CHECK(Shape{3, 0}.rows() == 0);
  CHECK(Shape{2, 3} != Shape{3, 2});
  CHECK(Shape{2} != Shape{2, 0});
}

TEST_CASE("impossible shapes are refused") {
  CHECK(input_error([] { Shape({1, 2, 3, 4, 5}); }) == "shape: 5 dimensions, at most 4");
  CHECK(input_error([] { Shape({2, -3}); }) == "shape: dimension 1 is negative (-3)");
  const int big = 1 << 30;
  CHECK(input_error([&] { Shape({big, big, big, big}); }) == "shape: too many elements");
  CHECK(input_error([&] { Shape({big, 1 << 11}); }) == "shape: too many elements");
}

TEST_CASE("a shape error prints the operation and both shapes") {
  CHECK(input_error([] {
          require_shape("linear", "bias", {3, 4}, {5});
        }) == "linear: bias has shape [3, 4], expected [5]");
  CHECK_NOTHROW(require_shape("linear", "bias", {5}, {5}));
}

TEST_CASE("arena memory is aligned, distinct and writable to its last byte") {
  Arena arena;
  std::set<char*> seen;
  for (size_t n : {1, 2, 63, 64, 65, 1000, 0, 3}) {
    char* p = arena.allocate<char>(n);
    CHECK(reinterpret_cast<uintptr_t>(p) % Arena::alignment == 0);
    std::memset(p, int(n), n);
    if (n) CHECK(seen.insert(p).second);
  }
  double* a = arena.allocate<double>(9);
  double* b = arena.allocate<double>(9);
  for (int i = 0; i < 9; ++i) a[i] = 1, b[i] = 2;
  for (int i = 0; i < 9; ++i) CHECK(a[i] == 1);
}

TEST_CASE("the arena joins its blocks on reset and then asks the system no more") {
  Arena arena;
  const auto step = [&] {
    for (int i = 0; i < 20; ++i) arena.allocate<float>(100'001);  // 8 MB in all, blocks are 1 MiB
    std::memset(arena.allocate<char>(3'000'000), 7, 3'000'000);   // one larger than a block
  };
  step();
  const size_t growing = arena.system_requests();
  CHECK(growing > 2);
  const size_t held = arena.capacity();
  arena.reset();
  CHECK(arena.system_requests() == growing + 1);
  CHECK(arena.capacity() == held);
  for (int i = 0; i < 3; ++i) {
    step();
    arena.reset();
    CHECK(arena.system_requests() == growing + 1);
  }
  char* first = arena.allocate<char>(1);
  arena.reset();
  CHECK(arena.allocate<char>(1) == first);  // the same memory again
}

TEST_CASE("the arena refuses more memory than there can be") {
  Arena arena;
  CHECK_THROWS_AS(arena.allocate<double>(~size_t{0} / 8), std::bad_alloc);
  CHECK_THROWS_AS(arena.allocate<double>(~size_t{0}), std::bad_alloc);
  CHECK(arena.allocate<double>(5) != nullptr);  // still of use
}
