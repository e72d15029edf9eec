#include "ops/embedding.h"

#include <cmath>

#include "tensor/simd.h"

namespace focus {

template <class T>
void fill_positions(T* position_table, int length, int channels) {
  for (int t = 0; t < length; ++t)
    for (int c = 0; c < channels; ++c) {
      const double angle = t * std::exp(-std::log(10000.0) * (c / 2 * 2) / channels);
      position_table[ptrdiff_t{t} * channels + c] =
          T(c % 2 == 0 ? std::sin(angle) : std::cos(angle));
    }
}

template <class T>
Tensor<T> embedding(Tape<T>& tape, const int* tokens, int B, const Tensor<T>& table,
                    const Tensor<T>& positions) {
  const int vocabulary = table.shape[0], C = table.channels(), length = positions.shape[0];
  require_shape("embedding", "positions", positions.shape, {length, C});
  for (int i = 0; i < B * length; ++i)
    if (tokens[i] < 0 || tokens[i] >= vocabulary)
      fail_input("embedding: token ", tokens[i], " at row ", i / length, ", position ", i % length,
                 " is outside the vocabulary of ", vocabulary);
  const Tensor<T> y = tape.make({B, length, C});
  const T scale = std::sqrt(T(C));
  tape.workers().run_ranges(B, 4, [=](int begin, int end) {
    for (int i = begin * length; i < end * length; ++i) {
      const T* row = table.data + ptrdiff_t{tokens[i]} * C;
      const T* position = positions.data + ptrdiff_t{i % length} * C;
      T* out = y.data + ptrdiff_t{i} * C;
      for (int c = 0; c < C; ++c) out[c] = scale * row[c] + position[c];
    }
  });
  tape.record(y, [=, &tape] {
    // Many tokens share a row of the table: one thread adds them in order.
    T* d_table = tape.gradient(table);
    const T* dy = tape.gradient(y);
    if (!d_table) return;
    for (ptrdiff_t i = 0; i < ptrdiff_t{B} * length; ++i)
      add_scaled(d_table + ptrdiff_t{tokens[i]} * C, dy + i * C, scale, C);
  });
  return y;
}

#define FOCUS_INSTANTIATE(T)                  \
  template void fill_positions(T*, int, int); \
  template Tensor<T> embedding(Tape<T>&, const int*, int, const Tensor<T>&, const Tensor<T>&);
FOCUS_INSTANTIATE(float)
FOCUS_INSTANTIATE(double)
#undef FOCUS_INSTANTIATE

}  // namespace focus
