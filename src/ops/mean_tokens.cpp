#include "ops/mean_tokens.h"

#include <algorithm>

#include "tensor/simd.h"

namespace focus {

template <class T>
Tensor<T> mean_tokens(Tape<T>& tape, const Tensor<T>& x) {
  if (x.shape.rank() != 3) fail_input("mean_tokens: x has shape ", x.shape.text(), ", not (B,T,C)");
  const int B = x.shape[0], length = x.shape[1], C = x.shape[2];
  const Tensor<T> y = tape.make({B, C});
  const T weight = T(1) / T(length);
  tape.workers().run_ranges(B, 4, [=](int begin, int end) {
    for (ptrdiff_t b = begin; b < end; ++b) {
      T* mean = y.data + b * C;
      std::fill(mean, mean + C, T(0));
      for (int t = 0; t < length; ++t) add_scaled(mean, x.data + (b * length + t) * C, weight, C);
    }
  });
  tape.record(y, [=, &tape] {
    T* dx = tape.gradient(x);
    const T* dy = tape.gradient(y);
    if (!dx) return;
    tape.workers().run_ranges(B, 4, [=](int begin, int end) {
      for (ptrdiff_t b = begin; b < end; ++b)
        for (int t = 0; t < length; ++t)
          add_scaled(dx + (b * length + t) * C, dy + b * C, weight, C);
    });
  });
  return y;
}

template Tensor<float> mean_tokens(Tape<float>&, const Tensor<float>&);
template Tensor<double> mean_tokens(Tape<double>&, const Tensor<double>&);

}  // namespace focus
