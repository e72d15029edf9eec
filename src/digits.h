// Numbers as text, with as many digits as it takes.
#pragma once

#include <charconv>
#include <sstream>
#include <string>

namespace focus {

// The shortest text that reads back as the same number.
inline std::string number_text(double value) {
  char buffer[32];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr};
}

// Two numbers for a message, told apart: "got 0.30000001, wanted 0.3". Numbers that are equal are
// written with six digits.
inline std::string got_wanted(double got, double wanted) {
  const auto text = [](double x, int digits) {
    std::ostringstream out;
    out.precision(digits);
    out << x;
    return out.str();
  };
  int digits = 6;
  // Two more than the first that differs, so that what differs is not only rounding.
  while (digits < 17 && got != wanted && text(got, digits) == text(wanted, digits)) ++digits;
  if (digits > 6) digits = digits < 15 ? digits + 2 : 17;
  return "got " + text(got, digits) + ", wanted " + text(wanted, digits);
}

}  // namespace focus
