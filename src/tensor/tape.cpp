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
  if (g->data) return {g->data, false};
  //@ begin 02 gradient-memory points=4
  //@ plan g has no memory yet: g->data must be made to point to g->size numbers.
  //@ plan 1. If free_ holds a buffer of exactly that size, take it, and take it out of free_.
  //@ plan 2. Else allocate: memory<T>(g->size).
  //@ plan 3. Return the memory, and `true`: what it holds is not a gradient.
  //@ hint 1 Two tensors of one size are alive at once. What happens to their gradients if a buffer
  //@ hint 1 is used and stays in free_?
  //@ hint 2 README, "Give memory back". A FreeBuffer has `data` and `size` (tape.h, at its end);
  //@ hint 2 the order of free_ has no meaning, so an element may be replaced by the last one.
  //@ hint 3 look for a buffer in free_ whose size equals g->size
  //@ hint 3 if there is one:
  //@ hint 3   g->data = its data
  //@ hint 3   put the last element of free_ in its place, then remove the last element
  //@ hint 3 else:
  //@ hint 3   g->data = memory<T>(g->size)
  //@ hint 3 return {g->data, true}
  //@ notice A model of 50 layers runs backward in the gradient memory of a few, which is still in
  //@ notice the cache when it is used again.
  const auto same_size = std::find_if(free_.begin(), free_.end(),
                                      //@ mutant gradient-memory-never-again: none is used again
                                      //~ [](const FreeBuffer&) { return false; });
                                      //@ mutant gradient-memory-any-size: any free memory will do
                                      //~ [](const FreeBuffer&) { return true; });
                                      [&](const FreeBuffer& b) { return b.size == g->size; });
  if (same_size != free_.end()) {
    g->data = same_size->data;
    //@ mutant(2) gradient-memory-shared: memory in use stays in the list of free memory
    *same_size = free_.back();
    free_.pop_back();
  } else {
    g->data = memory<T>(g->size);
  }
  //@ mutant gradient-not-zeroed: what the memory's last user left counts as a gradient
  //~ return {g->data, false};
  return {g->data, true};
  //@ end
}

template <class T>
T* Tape<T>::gradient(const Tensor<T>& x) {
  const Target target = gradient_target(x);
  if (target.fresh) std::fill(target.data, target.data + x.gradient->size, T(0));
  return target.data;
}

template <class T>
void Tape<T>::backward(const Tensor<T>& loss) {
  if (!recording_) fail_input("backward: the tape was not recording");
  if (!(loss.shape == Shape{1}))
    fail_input("backward: the loss has shape ", loss.shape.text(), ", not [1]");
  if (steps_.empty())
    fail_input("backward: nothing is recorded; a tape plays once for each forward");
  //@ begin 02 play-tape points=5
  //@ plan 1. The gradient of the loss with respect to itself is 1: set gradient(loss)[0].
  //@ plan 2. Until steps_ is empty, take out its last step. If nobody has added to its output's
  //@ plan    gradient (step.output->data is nullptr), the loss does not depend on it: go on.
  //@ plan 3. Else run it: step.run(step.backward).
  //@ plan 4. Its output's gradient has been used: give the memory to free_, set data to nullptr.
  //@ hint 1 A backward may run only when its dy is complete. In what order were the operations
  //@ hint 1 recorded, and in what order have all users of a tensor run before the one that made
  //@ hint 1 it?
  //@ hint 2 README, "Last first" and "Give memory back". Step and FreeBuffer are at the end of
  //@ hint 2 tape.h.
  //@ hint 3 gradient(loss)[0] = 1
  //@ hint 3 while steps_ is not empty:
  //@ hint 3   step = the last of steps_; remove it
  //@ hint 3   if step.output->data is nullptr: go on with the next
  //@ hint 3   step.run(step.backward)
  //@ hint 3   append {step.output->data, step.output->size} to free_
  //@ hint 3   step.output->data = nullptr
  //@ notice No graph was sorted: the order in which the operations ran, backwards, is a
  //@ notice topological order. A second backward finds an empty tape, so gradients cannot double
  //@ notice by accident.
  //@ mutant tape-starts-from-loss: the loss's own gradient is the loss and not 1
  //~ gradient(loss)[0] = loss.data[0];
  gradient(loss)[0] = T(1);
  while (!steps_.empty()) {
    //@ mutant(2) tape-forwards: backwards run in the order of the forward
    //~   const Step step = steps_.front();
    //~   steps_.erase(steps_.begin());
    const Step step = steps_.back();
    steps_.pop_back();
    //@ mutant tape-stops-at-a-branch: an output that nothing used ends the backward
    //~   if (!step.output->data) break;
    if (!step.output->data) continue;  // nothing depends on this output
    //@ mutant(2) tape-frees-early: a gradient's memory is given away before it was read
    //~   free_.push_back({step.output->data, step.output->size});
    //~   step.run(step.backward);
    step.run(step.backward);
    free_.push_back({step.output->data, step.output->size});
    step.output->data = nullptr;
  }
  //@ end
}

template class Tape<float>;
template class Tape<double>;

}  // namespace focus
