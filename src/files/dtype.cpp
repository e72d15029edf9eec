#include "files/dtype.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

namespace focus {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors stores little-endian bytes");

struct Row {
  DType dtype;
  const char* name;
  size_t bytes;
};

constexpr Row rows[] = {
    {DType::F64, "F64", 8},   {DType::F32, "F32", 4}, {DType::F16, "F16", 2},
    {DType::BF16, "BF16", 2}, {DType::I64, "I64", 8}, {DType::I32, "I32", 4},
    {DType::I16, "I16", 2},   {DType::I8, "I8", 1},   {DType::U64, "U64", 8},
    {DType::U32, "U32", 4},   {DType::U16, "U16", 2}, {DType::U8, "U8", 1},
    {DType::BOOL, "BOOL", 1},
};

const Row& row_of(DType dtype) {
  for (const Row& row : rows) {
    if (row.dtype == dtype) return row;
  }
  throw std::logic_error("a DType without a row in the table");
}

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
  return row_of(dtype).name;
}

std::optional<DType> dtype_named(std::string_view name) {
  for (const Row& row : rows) {
    if (name == row.name) return row.dtype;
  }
  return std::nullopt;
}

size_t bytes_of(DType dtype) {
  return row_of(dtype).bytes;
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
  switch (dtype) {
    case DType::I64:
      return load<int64_t>(at);
    case DType::I32:
      return load<int32_t>(at);
    case DType::I16:
      return load<int16_t>(at);
    case DType::I8:
      return load<int8_t>(at);
    case DType::U64: {
      const uint64_t value = load<uint64_t>(at);
      if (!std::in_range<int64_t>(value)) return std::nullopt;
      return int64_t(value);
    }
    case DType::U32:
      return load<uint32_t>(at);
    case DType::U16:
      return load<uint16_t>(at);
    case DType::U8:
    case DType::BOOL:
      return load<uint8_t>(at);
    default:
      throw std::logic_error("integer_at on a floating-point type");
  }
}

}  // namespace focus
