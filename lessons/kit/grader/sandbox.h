// Runs a program that may loop, crash, fill the memory or the disk, read what is not its own or try
// to change it: compilers of student code, and student code itself.
//
// bubblewrap (bwrap) gives it a root folder of its own with /usr, read-only, and what is named
// here; no network, no other processes, no capabilities. On top of that come limits, and for code
// that only computes a list of the system calls that it may make (GRADING.md says why).
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace focus::kit {

struct Limits {
  int seconds = 60;
  int memory_mb = 2048;
  int file_mb = 64;   // the largest file it may write
  int output_mb = 8;  // more on stdout and stderr ends it
  int threads = 256;  // of a program that only computes
};

struct Sandbox {
  struct Shown {
    std::filesystem::path host;
    std::string inside;  // absolute
  };
  std::vector<Shown> readable, writable;
  std::string folder = "/";              // to start in, inside
  std::vector<std::string> environment;  // all that it gets, "NAME=value"
  bool only_computes = false;            // no second process, no memory outside of its limit
};

struct Outcome {
  enum End { exited, crashed, too_long, too_much_output, too_many_threads } end = exited;
  int status = 0;      // exit status, or the signal
  std::string output;  // stdout and stderr
  std::string told;    // what it wrote to its end of `channel`, at most 64 KiB
  bool ok() const { return end == exited && status == 0; }
  std::string text(const Limits& limits) const;  // "does not end within 60 s"
};

// Runs `command` (found below /usr). If `secret` is not empty, the program finds a socket as file
// descriptor 3, from which it can read the secret, once, and write to Outcome::told.
// InputError: the program could not be started.
Outcome run_sandboxed(const std::vector<std::string>& command, const Sandbox& sandbox,
                      const Limits& limits, const std::string& secret = "");

// Why nothing can be run so on this system, and what to do; empty if it can.
std::string missing_protection();

}  // namespace focus::kit
