// Two numbers for a message: as many digits as it takes to tell them apart.
#pragma once

#include <sstream>
#include <string>

namespace focus {

// "got 0.30000001, wanted 0.3". Numbers that are equal are written with six digits.
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
