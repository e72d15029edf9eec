#include "ops/cross_entropy.h"

#include <cmath>

#include "tensor/softmax.h"

namespace focus {

template <class T>
double row_cross_entropy(const T* logits, int N, int label) {
  //@ begin 06 stable-loss points=5
  //@ plan -ln softmax(logits)[label], in double. largest_of(logits, N) is the top logit: subtract
  //@ plan it from each before the exponential, and from the label's logit too.
  //@ hint 1 What is exp(1000) in double? And the logarithm of softmax when its value is 1e-400?
  //@ hint 2 README, "Loss and accuracy of a set".
  //@ hint 3 top = the largest logit
  //@ hint 3 sum = the sum over n of exp(logits[n] - top)
  //@ hint 3 return ln(sum) minus (logits[label] - top)
  //@ notice The probability itself is never computed: the loss of a label that is as good as
  //@ notice impossible is a plain number, such as 2000.
  //@ mutant loss-overflows: exponentials of the logits as they are
  //~ const double top = 0;
  //@ mutant loss-of-first: the first logit is taken for the largest
  //~ const double top = double(logits[0]);
  const double top = double(largest_of(logits, N));
  double sum = 0;
  for (int n = 0; n < N; ++n) sum += std::exp(double(logits[n]) - top);
  //@ mutant loss-of-probability: the logarithm of the probability, which may be 0
  //~ return -std::log(std::exp(double(logits[label]) - top) / sum);
  //@ mutant loss-without-top: the largest logit is subtracted on one side only
  //~ return std::log(sum) - double(logits[label]);
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
