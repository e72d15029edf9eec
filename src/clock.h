// Elapsed time, for progress, estimates and bench tables. No result depends on it.
#pragma once

#include <chrono>

namespace focus {

// Seconds since an arbitrary moment; never runs backwards.
inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace focus
