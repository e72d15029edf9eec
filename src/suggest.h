// Suggestions for mistyped names.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace focus {

// The candidate with the fewest single-character insertions, deletions and replacements between it
// and `name` (Levenshtein's distance), the first of equal ones; empty if even that takes more than
// three, or as many as the candidate has characters.
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

}  // namespace focus
