// Abilities of a stream's terminal.
#pragma once

#include <cstdio>

namespace focus {

// Is the stream a terminal that can redraw a line? (Not when TERM is "dumb" or missing.)
bool is_terminal(std::FILE* stream);

// Should text on it be coloured? A terminal, unless NO_COLOR is set (see no-color.org).
bool wants_colour(std::FILE* stream);

// Columns of the terminal; 80 if it does not say.
int terminal_width(std::FILE* stream);

}  // namespace focus
