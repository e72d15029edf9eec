#include "cli/command.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <thread>

#include "error.h"
#include "train/settings.h"

namespace focus {

const std::string& Arguments::text(const std::string& flag) const {
  const auto found = flags.find(flag);
  return found == flags.end() ? fallbacks.at(flag) : found->second;
}

int64_t Arguments::whole(const std::string& flag, int64_t low, int64_t high) const {
  int64_t value = 0;
  try {
    value = parse_integer(text(flag));
  } catch (const InputError& error) {
    fail_input("--", flag, ": ", error.what());
  }
  if (value < low || value > high)
    fail_input("--", flag, " ", value, " is not between ", low, " and ", high);
  return value;
}

double Arguments::number(const std::string& flag, double low, double high) const {
  double value = 0;
  try {
    value = parse_number(text(flag));
  } catch (const InputError& error) {
    fail_input("--", flag, ": ", error.what());
  }
  if (!(value >= low && value <= high))
    fail_input("--", flag, " ", value, " is not between ", low, " and ", high);
  return value;
}

uint64_t Arguments::seed(const std::string& flag) const {
  return uint64_t(whole(flag, 0, std::numeric_limits<int64_t>::max()));
}

const std::string& Arguments::file(const std::string& flag) const {
  if (given(flag) && text(flag).empty()) fail_input("--", flag, ": the name is empty");
  return text(flag);
}

Flag device_flag() {
  return {"device", "cpu|cuda", "where to compute", "cpu"};
}

Flag threads_flag() {
  const unsigned threads = std::clamp(std::thread::hardware_concurrency(), 1u, 1024u);
  return {"threads", "N", "threads to compute with; they change the speed, never the result",
          std::to_string(threads)};
}

int threads_of(const Arguments& arguments) {
  return int(arguments.whole("threads", 1, 1024));
}

void print(const std::string& text) {
  static bool reader_gone = false;
  if (reader_gone) return;
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0)
    return;
  reader_gone = errno == EPIPE;
  if (!reader_gone) fail_input("cannot write to standard output: ", std::strerror(errno));
}

}  // namespace focus
