// Text and numbers for a gnuplot script.
#pragma once

#include <string>
#include <vector>

namespace focus::gnuplot {

// Text between single quotes, where gnuplot treats nothing but the quote itself as special. Control
// characters become blanks; text that is not UTF-8, which would spoil an SVG, loses those bytes.
std::string quoted(const std::string& text);

// Six significant digits: finer than any picture.
std::string number(double value);

// About how many pixels the text takes at the usual size; a little generous.
double text_width(const std::string& text);

// Lines of at most `width` pixels, broken at blanks. A longer word has a line of its own.
std::vector<std::string> wrapped(const std::string& text, double width);

}  // namespace focus::gnuplot
