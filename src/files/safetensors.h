// The safetensors format: named tensors and a few strings in one file.
//
//   8 bytes   length n of the header, unsigned, little-endian
//   n bytes   JSON: {"__metadata__": {"key": "text", …},
//                    "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …}
//   the rest  the elements, row-major, little-endian; offsets count from here, and together the
//             tensors cover every byte exactly once
//
// A file can come from anywhere, so everything is checked: a violation of any rule above is an
// InputError that names the file and the tensor.
//
// In safetensors.cpp, safetensors_format.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/dtype.h"

namespace focus {

using Shape64 = std::vector<int64_t>;  // sizes as files hold them, outermost first

std::string shape_text(const Shape64& shape);  // "[2, 3]"

struct StoredTensor {
  std::string name;
  DType dtype;
  Shape64 shape;
  std::vector<std::byte> bytes;  // row-major

  size_t count() const { return bytes.size() / bytes_of(dtype); }
};

class Safetensors {
 public:
  struct Limits {
    size_t file_bytes = size_t{1} << 32;
    size_t header_bytes = size_t{1} << 24;
    size_t tensors = 100'000;
    size_t dimensions = 8;
  };

  // `name` stands for the file in messages.
  explicit Safetensors(std::string name = "a new file") : file_(std::move(name)) {}

  // Both throw InputError if anything is wrong with the file.
  static Safetensors read(const std::filesystem::path& path, const Limits& limits);
  static Safetensors read(const std::filesystem::path& path) { return read(path, Limits{}); }
  static Safetensors parse(std::string_view bytes, const std::string& name, const Limits& limits);
  static Safetensors parse(std::string_view bytes, const std::string& name) {
    return parse(bytes, name, Limits{});
  }

  // Atomically; throws InputError when the path cannot be written. Same contents, same bytes.
  void write(const std::filesystem::path& path) const;
  std::string serialize() const;

  // Settings. The three readers throw InputError when the key is missing or its text is no number
  // of that kind (finite, within lo … hi).
  std::map<std::string, std::string> metadata;
  const std::string& setting(const std::string& key) const;
  int64_t integer_setting(const std::string& key, int64_t lo, int64_t hi) const;
  double number_setting(const std::string& key) const;

  // Tensors, in the order added; after reading, in the order of their data.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  // nullptr when there is none of that name. Pointers last until the next add.
  const StoredTensor* find(const std::string& name) const;
  // The tensor, or InputError with file, name, and both shapes or types.
  const StoredTensor& require(const std::string& name) const;
  const StoredTensor& require(const std::string& name, const Shape64& shape) const;
  const StoredTensor& require(const std::string& name, const Shape64& shape,
                              std::initializer_list<DType> dtypes) const;
  // InputError when an element is NaN or infinite: names the first, and says what to do. Whole
  // numbers always pass.
  void require_finite(
      const std::string& name,
      const std::string& advice = "use a checkpoint from before the numbers broke") const;

  // The elements as T: float or double from any floating-point type, uint8_t, int32_t or int64_t
  // from any other. InputError when the tensor is missing, is of the other kind, or holds a value
  // that T cannot (a finite number that float32 would turn into infinity; a large whole number).
  template <class T>
  std::vector<T> values(const std::string& name) const;
  template <class T>
  std::vector<T> values(const std::string& name, const Shape64& shape) const {
    require(name, shape);
    return values<T>(name);
  }

  // std::logic_error when the name is taken or the shape does not fit the number of elements.
  void add(std::string name, Shape64 shape, std::span<const float> data);
  void add(std::string name, Shape64 shape, std::span<const double> data);
  void add(std::string name, Shape64 shape, std::span<const int32_t> data);
  void add(std::string name, Shape64 shape, std::span<const int64_t> data);
  void add(std::string name, Shape64 shape, std::span<const uint8_t> data);
  void add(StoredTensor tensor);

  const std::string& file_name() const { return file_; }

 private:
  std::string file_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, size_t> index_;  // name → position in tensors_
};

}  // namespace focus
