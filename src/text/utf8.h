// UTF-8 (RFC 3629), as far as a reader of text needs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace focus {

// The offset of the first byte that is not part of a valid sequence: a stray continuation byte, a
// sequence that is cut short, longer than it need be, a surrogate, or above U+10FFFF.
std::optional<size_t> first_invalid_utf8(std::string_view bytes);

// Whether the byte goes on with a character that began before it.
inline bool continues_character(char byte) {
  return (uint8_t(byte) & 0xc0) == 0x80;
}

}  // namespace focus
