// Suggestions in messages: the known name nearest to a mistyped one, and lines to paste.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace focus {

// The candidate with the fewest single-character insertions, deletions and replacements between it
// and `name` (Levenshtein's distance), the first of equal ones; empty if even that takes more than
// three, or as many as the candidate has characters.
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

// The text as one word of a shell's command line: as it is, or in single quotes.
std::string shell_word(const std::string& text);

}  // namespace focus
