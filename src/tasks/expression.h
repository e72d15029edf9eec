// Fully bracketed expressions over the numbers 0 … 4, for modular arithmetic and solve equation.
//
//   digit      -digit      (digit)      (-digit)      (expression operator expression)
//
// In text one character is one token, so that a length in characters is a length in tokens. The
// distribution is the Chomsky-hierarchy benchmark's (Delétang et al. 2023).
#pragma once

#include <string>
#include <string_view>

#include "rng.h"

namespace focus {

// Appends a random expression of exactly `length` >= 1 characters to `text` and returns its value
// mod 5. Lengths 1 to 4 take the first four forms above. From 5 on, the left part's length is
// uniform in 1 … length-4, the right part takes what is left, and `operators` (such as "+-*") are
// equally likely.
int append_expression(Rng& rng, int length, std::string_view operators, std::string& text);

// The value mod 5 of an expression of the above form with operators + - and *. Nesting may be as
// deep as the text is long. Throws InputError that names the first wrong character's place (from
// 1).
int expression_value(std::string_view text);

}  // namespace focus
