// The number types that a safetensors file can hold, and how one element is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace focus {

enum class DType { F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL };

const char* name_of(DType dtype);                         // as in the file's header: "F32"
std::optional<DType> dtype_named(std::string_view name);  // none when the name is unknown
size_t bytes_of(DType dtype);                             // bytes of one element
bool is_float(DType dtype);

// The element that begins at `at`, which need not be aligned. The conversion is exact.
double float_at(DType dtype, const std::byte* at);  // F64, F32, F16, BF16
// The other types; none when a U64 exceeds the range of int64_t.
std::optional<int64_t> integer_at(DType dtype, const std::byte* at);

}  // namespace focus
