// Autograd: a tape of handwritten backwards.
//
// Each operation computes its output at once and records a function that, given the gradient of the
// output, adds the gradients of the inputs. backward() plays the tape from its end: by then every
// consumer of a tensor has run before its producer, because a producer was always recorded first.
//
// The rule of every backward in this project: it ADDS into the gradients of its inputs. A tensor
// used twice receives the sum. Activations start at zero here; parameters are zeroed by the caller.
//
// A gradient lives only from the first backward that adds to it until its own producer's backward
// has used it; then the next tensor of that size gets its memory. So the gradients of a deep model
// need the memory of a few layers, and they are still in cache when they are used.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/arena.h"
#include "tensor/tensor.h"
#include "tensor/workers.h"

namespace focus {

// Which random numbers a pass draws: dropout and random attention. Off (the default) means
// evaluation: dropout passes everything through. Two passes with the same noise draw the same
// numbers.
struct Noise {
  bool on = false;
  uint64_t seed = 0;
  uint32_t step = 0;
  uint32_t next_site = 0;  // each operation that draws takes one: its place in the model
};

template <class T>
class Tape {
 public:
  explicit Tape(Workers& workers) : workers_(workers) {}

  // Forgets all tensors and operations and gives the memory to the next pass. With recording off
  // (evaluation) operations compute and remember nothing.
  void reset(bool recording, Noise noise = {});

  // A new tensor with uninitialised numbers.
  Tensor<T> make(const Shape& shape);
  // Memory until the next reset().
  template <class U>
  U* memory(size_t count) {
    return arena_.template allocate<U>(count);
  }

  // Called by an operation once its output is computed; `backward` is stored in the arena. Whoever
  // captures pointers there captures arena memory or parameters, which outlive the tape's pass.
  template <class F>
  void record(const Tensor<T>& output, const F& backward) {
    static_assert(std::is_trivially_destructible_v<F>);
    if (!recording_) return;
    F* stored = new (arena_.allocate<F>(1)) F(backward);
    steps_.push_back({[](void* f) { (*static_cast<F*>(f))(); }, stored, output.gradient});
  }

  // The gradient to add into, zeroed before its first use; nullptr if it is not needed.
  T* gradient(const Tensor<T>& x);
  // The same for operations that can store instead of add: zeroing memory and reading it back costs
  // as much as a small operation. Without `accumulate` the memory is uninitialised, and every
  // element must be written.
  struct Target {
    T* data;
    bool accumulate;
  };
  Target gradient_target(const Tensor<T>& x);

  // Gradients of `loss`, a tensor with one element, with respect to everything recorded.
  void backward(const Tensor<T>& loss);

  bool recording() const { return recording_; }
  Noise& noise() { return noise_; }
  Workers& workers() { return workers_; }
  Arena& arena() { return arena_; }

 private:
  struct Step {
    void (*run)(void*);
    void* backward;
    Gradient<T>* output;
  };
  struct FreeBuffer {
    T* data;
    size_t size;
  };

  Workers& workers_;
  Arena arena_;
  std::vector<Step> steps_;
  std::vector<FreeBuffer> free_;  // gradient memory to use again
  bool recording_ = false;
  Noise noise_;
};

// A weight: numbers and gradient that outlive the steps, with the name it has in checkpoints.
template <class T>
struct Parameter {
  std::string name;
  Shape shape;
  std::vector<T> value, gradient_value;
  Gradient<T> gradient;
  // Its learning rate is the others' times this. 0: it is not trained, and its gradient does not
  // count in the norm that is clipped.
  double rate_factor = 1;

  Parameter(std::string name_, const Shape& shape_)
      : name(std::move(name_)),
        shape(shape_),
        value(shape_.size()),
        gradient_value(shape_.size()),
        gradient{gradient_value.data(), gradient_value.size(), true} {}
  Parameter(const Parameter&) = delete;  // tensors point into it
  Parameter& operator=(const Parameter&) = delete;

  Tensor<T> tensor() { return {shape, value.data(), &gradient}; }
};

}  // namespace focus
