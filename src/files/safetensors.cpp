// Access to a file's tensors and settings. Bytes become a Safetensors, and the other way round, in
// safetensors_format.cpp.
#include "files/safetensors.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "error.h"
#include "files/atomic_file.h"

namespace focus {

std::string shape_text(const Shape64& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

Safetensors Safetensors::read(const std::filesystem::path& path, const Limits& limits) {
  return parse(read_file(path, limits.file_bytes), path.string(), limits);
}

void Safetensors::write(const std::filesystem::path& path) const {
  write_file_atomically(path, serialize());
}

const std::string& Safetensors::setting(const std::string& key) const {
  const auto found = metadata.find(key);
  if (found == metadata.end()) {
    fail_input(file_, ": the setting '", key,
               "' is missing from __metadata__; is it a file of this kind?");
  }
  return found->second;
}

int64_t Safetensors::integer_setting(const std::string& key, int64_t lo, int64_t hi) const {
  const std::string& text = setting(key);
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  if (result.ec != std::errc{} || result.ptr != end || value < lo || value > hi) {
    fail_input(file_, ": the setting ", key, " = '", text.substr(0, 40),
               "' in __metadata__ must be a whole number from ", lo, " to ", hi);
  }
  return value;
}

double Safetensors::number_setting(const std::string& key) const {
  const std::string& text = setting(key);
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || end != text.c_str() + text.size() || !std::isfinite(value)) {
    fail_input(file_, ": the setting ", key, " = '", text.substr(0, 40),
               "' in __metadata__ must be a finite number");
  }
  return value;
}

const StoredTensor* Safetensors::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const StoredTensor& Safetensors::require(const std::string& name) const {
  const StoredTensor* tensor = find(name);
  if (!tensor) fail_input(file_, ": tensor ", name, " is missing; is it a file of this model?");
  return *tensor;
}

const StoredTensor& Safetensors::require(const std::string& name, const Shape64& shape) const {
  const StoredTensor& tensor = require(name);
  if (tensor.shape != shape) {
    fail_input(file_, ": tensor ", name, " has shape ", shape_text(tensor.shape), ", but ",
               shape_text(shape), " is needed; do the settings belong to these weights?");
  }
  return tensor;
}

const StoredTensor& Safetensors::require(const std::string& name, const Shape64& shape,
                                         std::initializer_list<DType> dtypes) const {
  const StoredTensor& tensor = require(name, shape);
  std::string wanted;
  for (const DType dtype : dtypes) {
    if (dtype == tensor.dtype) return tensor;
    wanted += (wanted.empty() ? "" : " or ") + std::string(name_of(dtype));
  }
  fail_input(file_, ": tensor ", name, " is of type ", name_of(tensor.dtype), ", but ", wanted,
             " is needed; convert it");
}

void Safetensors::require_finite(const std::string& name, const std::string& advice) const {
  const StoredTensor& tensor = require(name);
  if (!is_float(tensor.dtype)) return;
  for (size_t i = 0; i < tensor.count(); ++i) {
    const double value = float_at(tensor.dtype, &tensor.bytes[i * bytes_of(tensor.dtype)]);
    if (std::isfinite(value)) continue;
    fail_input(file_, ": tensor ", name, " holds ", std::isnan(value) ? "NaN" : "infinity",
               " at element ", i, "; ", advice);
  }
}

template <class T>
std::vector<T> Safetensors::values(const std::string& name) const {
  const StoredTensor& tensor = require(name);
  constexpr bool want_floats = std::is_floating_point_v<T>;
  if (is_float(tensor.dtype) != want_floats) {
    fail_input(file_, ": tensor ", name, " is of type ", name_of(tensor.dtype), ", but ",
               want_floats ? "floating-point" : "whole", " numbers are needed; convert it");
  }
  std::vector<T> result(tensor.count());
  for (size_t i = 0; i < result.size(); ++i) {
    const std::byte* at = &tensor.bytes[i * bytes_of(tensor.dtype)];
    bool fits;
    if constexpr (want_floats) {
      const double value = float_at(tensor.dtype, at);
      fits = !std::isfinite(value) || std::abs(value) <= double(std::numeric_limits<T>::max());
      if (fits) result[i] = T(value);
    } else {
      const std::optional<int64_t> value = integer_at(tensor.dtype, at);
      fits = value && std::in_range<T>(*value);
      if (fits) result[i] = T(*value);
    }
    if (!fits) {
      fail_input(file_, ": tensor ", name, ", element ", i, ": the value is too large for ",
                 sizeof(T) * 8, " bits; is the file damaged?");
    }
  }
  return result;
}

template std::vector<float> Safetensors::values(const std::string&) const;
template std::vector<double> Safetensors::values(const std::string&) const;
template std::vector<uint8_t> Safetensors::values(const std::string&) const;
template std::vector<int32_t> Safetensors::values(const std::string&) const;
template std::vector<int64_t> Safetensors::values(const std::string&) const;

void Safetensors::add(StoredTensor tensor) {
  size_t bytes = bytes_of(tensor.dtype);
  for (const int64_t size : tensor.shape) bytes *= size_t(size);
  if (tensor.bytes.size() != bytes) {
    throw std::logic_error(str("tensor ", tensor.name, ": ", tensor.count(),
                               " elements do not fill shape ", shape_text(tensor.shape)));
  }
  if (!index_.emplace(tensor.name, tensors_.size()).second) {
    throw std::logic_error(str("tensor ", tensor.name, " was added twice"));
  }
  tensors_.push_back(std::move(tensor));
}

namespace {

template <class T>
StoredTensor stored(std::string name, DType dtype, Shape64 shape, std::span<const T> data) {
  const std::span<const std::byte> bytes = std::as_bytes(data);
  return {std::move(name), dtype, std::move(shape), {bytes.begin(), bytes.end()}};
}

}  // namespace

void Safetensors::add(std::string name, Shape64 shape, std::span<const float> data) {
  add(stored(std::move(name), DType::F32, std::move(shape), data));
}
void Safetensors::add(std::string name, Shape64 shape, std::span<const double> data) {
  add(stored(std::move(name), DType::F64, std::move(shape), data));
}
void Safetensors::add(std::string name, Shape64 shape, std::span<const int32_t> data) {
  add(stored(std::move(name), DType::I32, std::move(shape), data));
}
void Safetensors::add(std::string name, Shape64 shape, std::span<const int64_t> data) {
  add(stored(std::move(name), DType::I64, std::move(shape), data));
}
void Safetensors::add(std::string name, Shape64 shape, std::span<const uint8_t> data) {
  add(stored(std::move(name), DType::U8, std::move(shape), data));
}

}  // namespace focus
