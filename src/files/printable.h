// Foreign bytes, from files and command lines, for a terminal: it must not obey them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace focus {

// Control characters become '?': ASCII's, and in UTF-8 those from U+0080 to U+009F, of which one
// begins a terminal's commands as ESC [ does.
inline std::string without_control(std::string_view text) {
  std::string shown;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = [&](size_t at) { return at < text.size() ? uint8_t(text[at]) : uint8_t{0}; };
    const bool two_bytes = byte(i) == 0xc2 && byte(i + 1) >= 0x80 && byte(i + 1) < 0xa0;
    shown += byte(i) < ' ' || byte(i) == 127 || two_bytes ? '?' : text[i];
    i += two_bytes;
  }
  return shown;
}

// Two digits a byte.
inline std::string hex_text(std::string_view bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string hex;
  for (const char c : bytes) (hex += digits[uint8_t(c) >> 4]) += digits[uint8_t(c) & 15];
  return hex;
}

}  // namespace focus
