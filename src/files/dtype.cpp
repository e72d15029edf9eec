#include "files/dtype.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <utility>

namespace focus {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors stores little-endian bytes");

struct Row {
  const char* name;
  size_t bytes;
};
constexpr Row rows[] = {  // in the order of DType
    {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4}, {"I16", 2},
    {"I8", 1},  {"U64", 8}, {"U32", 4}, {"U16", 2},  {"U8", 1},  {"BOOL", 1}};

// memcpy, because the bytes of a tensor may begin at any address.
template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// IEEE half precision: 1 sign bit, 5 exponent bits (bias 15), 10 bits of fraction.
double half_to_double(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  double magnitude;
  if (exponent == 31) {
    magnitude = fraction == 0 ? std::numeric_limits<double>::infinity()
                              : std::numeric_limits<double>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(fraction, -24);
  } else {
    magnitude = std::ldexp(1024 + fraction, exponent - 25);
  }
  return bits & 0x8000 ? -magnitude : magnitude;
}

}  // namespace

const char* name_of(DType dtype) {
  return rows[size_t(dtype)].name;
}

std::optional<DType> dtype_named(std::string_view name) {
  for (size_t i = 0; i < std::size(rows); ++i)
    if (name == rows[i].name) return DType(i);
  return std::nullopt;
}

size_t bytes_of(DType dtype) {
  return rows[size_t(dtype)].bytes;
}

bool is_float(DType dtype) {
  return dtype == DType::F64 || dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16;
}

double float_at(DType dtype, const std::byte* at) {
  switch (dtype) {
    case DType::F64:
      return load<double>(at);
    case DType::F32:
      return load<float>(at);
    case DType::F16:
      return half_to_double(load<uint16_t>(at));
    case DType::BF16:  // the upper half of a float32
      return std::bit_cast<float>(uint32_t{load<uint16_t>(at)} << 16);
    default:
      throw std::logic_error("float_at on a whole-number type");
  }
}

std::optional<int64_t> integer_at(DType dtype, const std::byte* at) {
  if (is_float(dtype)) throw std::logic_error("integer_at on a floating-point type");
  const auto [name, bytes] = rows[size_t(dtype)];
  uint64_t bits = 0;
  std::memcpy(&bits, at, bytes);
  const int unused = 64 - 8 * int(bytes);
  if (name[0] == 'I') return int64_t(bits << unused) >> unused;  // copies the sign
  if (!std::in_range<int64_t>(bits)) return std::nullopt;
  return int64_t(bits);
}

}  // namespace focus
