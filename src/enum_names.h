// Names of an enumeration's values, for the command line, checkpoints and tables: an array of names
// in the order of the values.
#pragma once

#include <string>
#include <string_view>

#include "error.h"

namespace focus {

// The value of E with this name. Throws InputError, with the names there are, for any other;
// `what` is the kind of thing: "attention".
template <class E, size_t N>
E value_named(std::string_view name, const char* const (&names)[N], const char* what) {
  std::string known;
  for (size_t i = 0; i < N; ++i) {
    if (name == names[i]) return E(i);
    known += str(i == 0 ? "" : i + 1 == N ? " or " : ", ", names[i]);
  }
  fail_input(what, " '", name, "' is unknown: use ", known);
}

// The name of a value; "?" for a number that is none.
template <class E, size_t N>
const char* name_among(const char* const (&names)[N], E value) {
  return size_t(value) < N ? names[size_t(value)] : "?";
}

}  // namespace focus
