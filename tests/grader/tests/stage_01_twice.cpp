#include <doctest/doctest.h>

#include "numbers.h"

TEST_CASE("twice") {
  CHECK(twice(21) == 42);
}
TEST_CASE("half") {
  CHECK(half(42) == 21);
}
