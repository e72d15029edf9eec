// Vectors of the processor's native width, written with the compilers' vector types: arithmetic on
// a Vec<T> is elementwise, and the same source serves AVX-512, AVX2, SSE and NEON. Used where the
// compiler cannot vectorise by itself: sums (float addition may not be reordered) and register
// tiles.
#pragma once

#include <cstddef>
#include <cstring>
#include <type_traits>

namespace focus {

#if defined(__AVX512F__)
inline constexpr int simd_bytes = 64, simd_registers = 32;
#elif defined(__AVX__)
inline constexpr int simd_bytes = 32, simd_registers = 16;
#elif defined(__aarch64__)
inline constexpr int simd_bytes = 16, simd_registers = 32;
#else
inline constexpr int simd_bytes = 16, simd_registers = 16;
#endif

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(simd_bytes)));
};
template <class T>
using Vec = typename VecOf<T>::type;

// How many numbers of type T a vector holds.
template <class T>
inline constexpr int lanes = simd_bytes / int(sizeof(T));

template <class T>
inline Vec<T> load(const T* from) {
  Vec<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
inline void store(T* to, Vec<T> v) {
  std::memcpy(to, &v, sizeof v);
}

// The first n < lanes numbers; the rest of the vector is zero.
template <class T>
inline Vec<T> load_part(const T* from, int n) {
  Vec<T> v{};
  std::memcpy(&v, from, size_t(n) * sizeof(T));
  return v;
}

template <class T>
inline void store_part(T* to, Vec<T> v, int n) {
  std::memcpy(to, &v, size_t(n) * sizeof(T));
}

// The sum of a vector's numbers, always in the same order: halves are added until one is left.
template <class V>
inline auto sum_lanes(V v) {
  using T = std::remove_cvref_t<decltype(v[0])>;
  if constexpr (sizeof(V) == 2 * sizeof(T)) {
    return v[0] + v[1];
  } else {
    typedef T Half __attribute__((vector_size(sizeof(V) / 2)));
    Half halves[2];
    std::memcpy(halves, &v, sizeof v);
    return sum_lanes<Half>(halves[0] + halves[1]);
  }
}
template <class T>
inline T sum(Vec<T> v) {
  return sum_lanes<Vec<T>>(v);
}

// Σ a_i b_i, in an order that depends on n alone.
template <class T>
inline T dot(const T* a, const T* b, int n) {
  Vec<T> total{};
  int i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) total += load(a + i) * load(b + i);
  if (i < n) total += load_part(a + i, n - i) * load_part(b + i, n - i);
  return sum<T>(total);
}

// y_i += factor * x_i.
template <class T>
inline void add_scaled(T* y, const T* x, T factor, int n) {
  for (int i = 0; i < n; ++i) y[i] += factor * x[i];
}

// n rounded up to whole vectors.
template <class T>
constexpr int round_up_to_lanes(int n) {
  return (n + lanes<T> - 1) / lanes<T> * lanes<T>;
}

}  // namespace focus
