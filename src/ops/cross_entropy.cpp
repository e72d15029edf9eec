#include "ops/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "tensor/softmax.h"

namespace focus {

namespace {

template <class T>
double of_vocabulary(const T* logits, int N, int label) {
  constexpr int most = 256;
  const T top = largest_of(logits, N);
  T terms[most];
  double sum = 0;
  for (int first = 0; first < N; first += most) {
    const int n = std::min(most, N - first);
    for (int j = 0; j < n; ++j) terms[j] = exponential(logits[first + j] - top);
    Vec<T> sums{};
    int j = 0;
    for (; j + lanes<T> <= n; j += lanes<T>) sums += load(terms + j);
    if (j < n) sums += load_part(terms + j, n - j);
    sum += double(focus::sum<T>(sums));
  }
  return std::log(sum) - (double(logits[label]) - double(top));
}

}  // namespace

template <class T>
double row_cross_entropy(const T* logits, int N, int label) {
  if (N > most_classes_in_double) return of_vocabulary(logits, N, label);
  //@ gap 06 stable-loss
  const double top = double(largest_of(logits, N));
  double sum = 0;
  for (int n = 0; n < N; ++n) sum += std::exp(double(logits[n]) - top);
  return std::log(sum) - (double(logits[label]) - top);
  //@ end
}

template <class T>
Tensor<T> cross_entropy(Tape<T>& tape, const Tensor<T>& logits, const int* labels) {
  const int B = logits.rows(), N = logits.channels();
  if (B == 0 || N == 0) fail_input("cross_entropy: logits have shape ", logits.shape.text());
  const Tensor<T> loss = tape.make({1});
  double total = 0;  // in double: the loss is compared between builds to many digits
  for (int b = 0; b < B; ++b) {
    if (labels[b] < 0 || labels[b] >= N)
      fail_input("cross_entropy: label ", labels[b], " of row ", b, " is not below ", N);
    total += row_cross_entropy(logits.data + ptrdiff_t{b} * N, N, labels[b]);
  }
  loss.data[0] = T(total / B);
  tape.record(loss, [=, &tape] {
    // d loss / d logit = (probability - [right class]) / B
    T* d_logits = tape.gradient(logits);
    if (!d_logits) return;
    const T factor = tape.gradient(loss)[0] / T(B);
    T* p = tape.template memory<T>(size_t(N));
    for (int b = 0; b < B; ++b) {
      softmax_row(p, logits.data + ptrdiff_t{b} * N, N, T(1));
      p[labels[b]] -= T(1);
      add_scaled(d_logits + ptrdiff_t{b} * N, p, factor, N);
    }
  });
  return loss;
}

#define FOCUS_INSTANTIATE(T)                             \
  template double row_cross_entropy(const T*, int, int); \
  template Tensor<T> cross_entropy(Tape<T>&, const Tensor<T>&, const int*);
FOCUS_INSTANTIATE(float)
FOCUS_INSTANTIATE(double)
#undef FOCUS_INSTANTIATE

}  // namespace focus
