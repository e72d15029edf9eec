// Ctrl-C as a flag that long work looks at between two steps.
#pragma once

#include <atomic>

namespace focus {

// From now on the first SIGINT or SIGTERM sets the returned flag; a second one ends the program at
// once, with status 130 (files are only ever replaced whole, so they stay valid).
const std::atomic<bool>& catch_interrupts();

}  // namespace focus
