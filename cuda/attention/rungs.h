// Host code that the rungs share: their list, and checks of a call.
//
// In *.cu.
#pragma once

#include <type_traits>
#include <utility>

#include "cuda/attention/attention.h"
#include "error.h"

namespace focus::gpu {

extern const Rung dense_01_forward, dense_01_backward;
//@ from 09
extern const Rung dense_02_forward, dense_02_backward, dense_03_forward, dense_04_forward,
    dense_05_backward, local_12_forward, local_12_backward, local_13_forward, local_13_backward;
//@ end
//@ from 10
extern const Rung topk_06_forward, topk_07_forward, topk_08_forward, topk_09_forward,
    topk_10_backward, topk_11_backward;
//@ end

inline bool is_dense(Pattern p) {
  return p == Pattern::full;
}
inline bool is_topk(Pattern p) {
  return p == Pattern::topk;
}
inline bool is_local(Pattern p) {
  return p == Pattern::banded || p == Pattern::block;
}

inline std::string supports_all(const Call&) {
  return "";
}
inline size_t no_workspace(const Call&) {
  return 0;
}

// "" if every tensor that the call has can be read 16 bytes at a time.
std::string unaligned(const Call& c);
// "" if the width is one that the fast kernels are compiled for: a multiple of 4 from 16 to 128;
// and tensors aligned.
std::string unsupported_width(const Call& c);

// Calls f(std::integral_constant<int, W>) with the compiled width W that D is padded to:
//   D    16   20 … 32   36 … 64   68 … 128
//   W    16        32        64        128
template <class F>
void for_width(int D, const F& f) {
  if (D <= 16) return f(std::integral_constant<int, 16>{});
  if (D <= 32) return f(std::integral_constant<int, 32>{});
  if (D <= 64) return f(std::integral_constant<int, 64>{});
  if (D <= 128) return f(std::integral_constant<int, 128>{});
  fail_input("width ", D, ": at most 128");
}

// "" if the width is at most 64.
std::string wider_than_64(const Call& c);
// The same for kernels that have no room for more than 64 channels.
template <class F>
void for_width_up_to_64(int D, const F& f) {
  if (D <= 16) return f(std::integral_constant<int, 16>{});
  if (D <= 32) return f(std::integral_constant<int, 32>{});
  if (D <= 64) return f(std::integral_constant<int, 64>{});
  fail_input("width ", D, ": at most 64");
}

// The same with the length of a compiled list of kept keys:
//   k    1 … 5   6 … 8   9 … 16
//   K        5       8       16
inline constexpr int longest_list = 16;
template <class F>
void for_list(int k, const F& f) {
  if (k <= 5) return f(std::integral_constant<int, 5>{});
  if (k <= 8) return f(std::integral_constant<int, 8>{});
  if (k <= longest_list) return f(std::integral_constant<int, 16>{});
  fail_input("k = ", k, ": at most ", longest_list);
}

// "" if a block may have so much shared memory.
std::string too_little_shared_memory(size_t bytes);
// `why` unless it is "" (the width then fits); then "" if a block may have the shared memory that a
// rung needs at this width, bytes(W).
template <class F>
std::string or_too_little_shared_memory(const std::string& why, const Call& c, const F& bytes) {
  if (!why.empty()) return why;
  size_t needed = 0;
  for_width(c.q.D, [&](auto width) { needed = bytes(width); });
  return too_little_shared_memory(needed);
}

// "" if the width fits and the list has at most longest_list places.
inline std::string unsupported_list(const Call& c) {
  return c.kept > longest_list ? str("k = ", c.kept, ", more than ", longest_list)
                               : unsupported_width(c);
}

// Fewer tiles of so many rows than two for each multiprocessor, in one of the call's parts?
bool few_tiles(const Call& c, int rows);
// Calls f(width, rows): the compiled width, and how many queries a block owns, 128 or, where those
// blocks would be too few to fill the device, 64.
template <class F>
void for_width_and_rows(const Call& c, const F& f) {
  for_width(c.q.D, [&](auto width) {
    few_tiles(c, 128) ? f(width, std::integral_constant<int, 64>{})
                      : f(width, std::integral_constant<int, 128>{});
  });
}

inline int tiles_of(int n, int size) {
  return (n + size - 1) / size;
}

// Copies for tensor cores (rounded.cuh) have whole tiles of 128 rows.
FOCUS_HD constexpr int padded_rows(int T) {
  return (T + 127) / 128 * 128;
}

}  // namespace focus::gpu
