// Runs a program that may loop, crash, fill the memory or the disk, or try to change things that
// are not its own: student code is run so.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace focus::kit {

struct Limits {
  int seconds = 60;
  int memory_mb = 2048;
  int file_mb = 64;                             // the largest file it may write
  int output_mb = 8;                            // more on stdout and stderr ends it
  bool may_start_programs = false;              // a compiler must
  std::vector<std::filesystem::path> writable;  // folders; nothing else can be written
};

struct Outcome {
  enum End { exited, crashed, too_long, too_much_output } end = exited;
  int status = 0;      // exit status, or the signal
  std::string output;  // stdout and stderr, the last 256 KiB
  bool ok() const { return end == exited && status == 0; }
  std::string text(const Limits& limits) const;  // "does not end within 60 s"
};

// Runs `command` in `folder`, without network. `environment` is all it gets ("NAME=value").
Outcome run_limited(const std::vector<std::string>& command, const std::filesystem::path& folder,
                    const std::vector<std::string>& environment, const Limits& limits);

// What this system cannot keep student code from doing; empty if it can all be prevented.
std::string missing_protection();

}  // namespace focus::kit
