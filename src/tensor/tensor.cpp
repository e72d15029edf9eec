#include "tensor/tensor.h"

namespace focus {

Shape::Shape(std::initializer_list<int> dimensions) {
  if (dimensions.size() > dimensions_.size())
    fail_input("shape: ", dimensions.size(), " dimensions, at most ", dimensions_.size());
  size_t size = 1;
  for (int n : dimensions) {
    if (n < 0) fail_input("shape: dimension ", rank_, " is negative (", n, ")");
    // Row counts and offsets inside a row are int: keep the whole tensor far from overflow.
    if (n > 0 && size > (size_t{1} << 40) / size_t(n)) fail_input("shape: too many elements");
    size *= size_t(n);
    dimensions_[size_t(rank_++)] = n;
  }
}

size_t Shape::size() const {
  size_t size = 1;
  for (int i = 0; i < rank_; ++i) size *= size_t(dimensions_[size_t(i)]);
  return size;
}

Shape Shape::with_last(int n) const {
  Shape shape = *this;
  shape.dimensions_[size_t(rank_ - 1)] = n;
  return shape;
}

std::string Shape::text() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) text += (i ? ", " : "") + std::to_string(dimensions_[size_t(i)]);
  return text + "]";
}

void require_shape(const char* operation, const char* what, const Shape& got, const Shape& wanted) {
  if (!(got == wanted))
    fail_input(operation, ": ", what, " has shape ", got.text(), ", expected ", wanted.text());
}

}  // namespace focus
