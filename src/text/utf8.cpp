#include "text/utf8.h"

#include <cstdint>

namespace focus {

std::optional<size_t> first_invalid_utf8(std::string_view bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const uint8_t lead = uint8_t(bytes[at]);
    const int following = lead < 0x80                    ? 0
                          : lead >= 0xc2 && lead <= 0xdf ? 1
                          : lead >= 0xe0 && lead <= 0xef ? 2
                          : lead >= 0xf0 && lead <= 0xf4 ? 3
                                                         : -1;
    if (following < 0) return at;
    // The second byte's range rules out overlong forms, surrogates and what exceeds U+10FFFF.
    const uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    for (int i = 1; i <= following; ++i) {
      const size_t next = at + size_t(i);
      const uint8_t byte = next < bytes.size() ? uint8_t(bytes[next]) : 0;
      if (byte < (i == 1 ? low : 0x80) || byte > (i == 1 ? high : 0xbf)) return at;
    }
    at += size_t(following) + 1;
  }
  return std::nullopt;
}

}  // namespace focus
