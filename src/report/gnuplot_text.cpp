#include "report/gnuplot_text.h"

#include <algorithm>
#include <cstdio>
#include <sstream>

namespace focus::gnuplot {
namespace {

bool is_utf8(const std::string& text) {
  size_t pending = 0;  // continuation bytes still to come
  bool valid = true;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte & 0xC0) == 0x80) {
      valid = valid && pending > 0;
      if (pending > 0) --pending;
    } else {
      valid = valid && pending == 0 && byte < 0xF5 && byte != 0xC0 && byte != 0xC1;
      pending = byte < 0x80 ? 0 : byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
    }
  }
  return valid && pending == 0;
}

}  // namespace

std::string quoted(const std::string& text) {
  const bool valid = is_utf8(text);
  std::string result = "'";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < ' ' || byte == 127) {
      result += ' ';
    } else if (byte >= 128 && !valid) {
      result += '?';
    } else {
      result += c == '\'' ? "''" : std::string(1, c);
    }
  }
  return result + "'";
}

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

double text_width(const std::string& text) {
  const auto starts = [](char c) { return (c & 0xC0) != 0x80; };
  constexpr double character_width = 7.2;
  return character_width * double(std::count_if(text.begin(), text.end(), starts));
}

std::vector<std::string> wrapped(const std::string& text, double width) {
  std::vector<std::string> lines;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (!lines.empty() && text_width(lines.back() + " " + word) <= width) {
      lines.back() += " " + word;
    } else {
      lines.push_back(word);
    }
  }
  return lines;
}

}  // namespace focus::gnuplot
