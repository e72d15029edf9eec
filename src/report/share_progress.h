// Progress of work that only knows which share of it is done: a line on a terminal that is redrawn,
// and in a log or a pipe a line now and then.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>

namespace focus {

class ShareProgress {
 public:
  explicit ShareProgress(std::string label, std::FILE* out = stderr);
  // Clears its line.
  ~ShareProgress();
  ShareProgress(const ShareProgress&) = delete;
  ShareProgress& operator=(const ShareProgress&) = delete;

  // From one thread at a time. The first call tells what an earlier run had done.
  void show(double share);

 private:
  const std::string label_;
  std::FILE* const out_;
  const bool redraw_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double first_ = -1, last_shown_ = 0;
};

}  // namespace focus
