// Errors of the whole project, and the exit status each one ends the program with.
//
// A message is one line that says what is wrong, where (file, line, tensor, flag), and what to do.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace focus {

// Bad input or environment: exit status 2. Nothing has been written when this is thrown.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The memory does not suffice; a smaller batch, or fewer runs at a time, may fit.
struct OutOfMemory : InputError {
  using InputError::InputError;
};

// A check or a run failed (mismatch, wrong label, NaN loss): exit status 1.
struct RunError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A device has failed and computes no more. What others compute is not touched.
struct DeviceLost : RunError {
  using RunError::RunError;
};

// Joins its arguments into one string: str("k = ", k, " exceeds ", length).
template <class... Args>
std::string str(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

template <class... Args>
[[noreturn]] void fail_input(const Args&... args) {
  throw InputError(str(args...));
}

template <class... Args>
[[noreturn]] void fail_run(const Args&... args) {
  throw RunError(str(args...));
}

}  // namespace focus
