#include "tensor/tape.h"

#include <algorithm>

namespace focus {

template <class T>
void Tape<T>::reset(bool recording, Noise noise) {
  steps_.clear();
  free_.clear();
  arena_.reset();
  recording_ = recording;
  noise_ = noise;
}

template <class T>
Tensor<T> Tape<T>::make(const Shape& shape) {
  Tensor<T> x{shape, memory<T>(shape.size()), nullptr};
  if (recording_)
    x.gradient = new (arena_.allocate<Gradient<T>>(1)) Gradient<T>{nullptr, shape.size(), false};
  return x;
}

template <class T>
typename Tape<T>::Target Tape<T>::gradient_target(const Tensor<T>& x) {
  Gradient<T>* g = x.gradient;
  if (!g) return {nullptr, false};
  if (g->data) return {g->data, true};
  //@ gap 02 gradient-memory
  const auto same_size = std::find_if(free_.begin(), free_.end(),
                                      [&](const FreeBuffer& b) { return b.size == g->size; });
  if (same_size != free_.end()) {
    g->data = same_size->data;
    *same_size = free_.back();
    free_.pop_back();
  } else {
    g->data = memory<T>(g->size);
  }
  return {g->data, false};
  //@ end
}

template <class T>
T* Tape<T>::gradient(const Tensor<T>& x) {
  const Target target = gradient_target(x);
  if (target.data && !target.accumulate)
    std::fill(target.data, target.data + x.gradient->size, T(0));
  return target.data;
}

template <class T>
void Tape<T>::backward(const Tensor<T>& loss) {
  if (!recording_) fail_input("backward: the tape was not recording");
  if (!(loss.shape == Shape{1}))
    fail_input("backward: the loss has shape ", loss.shape.text(), ", not [1]");
  if (steps_.empty())
    fail_input("backward: nothing is recorded; a tape plays once for each forward");
  //@ gap 02 play-tape
  gradient(loss)[0] = T(1);
  while (!steps_.empty()) {
    const Step step = steps_.back();
    steps_.pop_back();
    if (!step.output->data) continue;  // nothing depends on this output
    step.run(step.backward);
    free_.push_back({step.output->data, step.output->size});
    step.output->data = nullptr;
  }
  //@ end
}

template class Tape<float>;
template class Tape<double>;

}  // namespace focus
