// A tensor: a shape, the numbers in row-major order, and a place for their gradient.
//
// A Tensor is a small handle that is copied freely; it owns nothing. The memory belongs to an arena
// (activations, gone after the step) or to a Parameter (weights, kept). T is float for training and
// double for the gradient checks, with the same code for both.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <initializer_list>
#include <string>

#include "error.h"

namespace focus {

// Up to four dimensions. Letters used everywhere: B batch, T tokens, H heads, D head width,
// C channels (d_model, or heads · head width), K kept keys.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int> dimensions);

  int rank() const { return rank_; }
  int operator[](int i) const {
    assert(i >= 0 && i < rank_);
    return dimensions_[size_t(i)];
  }
  int last() const { return (*this)[rank_ - 1]; }
  // The number of elements; 1 for rank 0.
  size_t size() const;
  // The number of rows when all but the last dimension are folded together.
  int rows() const { return last() == 0 ? 0 : int(size() / size_t(last())); }
  // The same shape with another last dimension.
  Shape with_last(int n) const;

  bool operator==(const Shape&) const = default;
  std::string text() const;  // "[25, 40, 64]"

 private:
  std::array<int, 4> dimensions_{};
  int rank_ = 0;
};

// Where a tensor's gradient is. Activations get memory when backward first adds to them and give it
// back when their own backward has run (tape.h); a parameter's gradient stays.
template <class T>
struct Gradient {
  T* data = nullptr;
  size_t size = 0;
  bool kept = false;  // a parameter's: never taken back, zeroed by the caller
};

template <class T>
struct Tensor {
  Shape shape;
  T* data = nullptr;
  Gradient<T>* gradient = nullptr;  // nullptr: not needed (inputs, evaluation)

  size_t size() const { return shape.size(); }
  int rows() const { return shape.rows(); }
  int channels() const { return shape.last(); }
};

// Throws InputError naming the operation and both shapes unless they agree.
void require_shape(const char* operation, const char* what, const Shape& got, const Shape& wanted);

}  // namespace focus
