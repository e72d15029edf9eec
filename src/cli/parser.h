// From argc and argv to a command and its arguments.
#pragma once

#include <vector>

#include "cli/command.h"

namespace focus {

struct ParsedLine {
  const Command* command = nullptr;  // one of those given; nullptr: only print `text`
  Arguments arguments = {};
  std::string text = {};  // a help page, or the version
};

// Throws InputError for an unknown command or flag (and suggests the nearest), a missing or a
// superfluous argument.
ParsedLine parse_command_line(int argc, const char* const* argv,
                              const std::vector<Command>& commands, const std::string& version);

}  // namespace focus
