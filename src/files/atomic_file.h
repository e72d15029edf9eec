// Whole files: read at once, written at once.
//
// A program can be killed between any two of its instructions, and a disk can fill up. So nothing
// is ever written over an existing file. The bytes go to a temporary file beside it, are synced to
// the disk, and then take the name by rename(2), which replaces the old file in one step. Whoever
// opens the path sees the whole old file or the whole new one.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace focus {

enum class IfThere { replace, refuse };

// Writes `bytes` to `path`, replacing the file that may be there, or refusing to (also if another
// process makes it meanwhile). The folder must exist.
// Throws InputError (path, reason, what to do) when it cannot; the old file is then untouched and
// the temporary file removed. Two threads may write different paths, or even the same one, at once.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes,
                           IfThere if_there = IfThere::replace);

// Everything in `path`. Throws InputError when it is missing, no regular file, unreadable, or holds
// more than `max_bytes`.
std::string read_file(const std::filesystem::path& path, size_t max_bytes);

// "WHAT PATH: REASON; ADVICE": the system's own reason for an errno, and what helps. fail_file
// throws it as InputError.
std::string file_problem(const char* what, const std::filesystem::path& path, int error);
[[noreturn]] void fail_file(const char* what, const std::filesystem::path& path, int error);

}  // namespace focus
