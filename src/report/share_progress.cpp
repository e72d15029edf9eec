#include "report/share_progress.h"

#include <utility>

#include "report/progress.h"
#include "report/terminal.h"

namespace focus {

ShareProgress::ShareProgress(std::string label, std::FILE* out)
    : label_(std::move(label)), out_(out), redraw_(is_terminal(out)) {}

ShareProgress::~ShareProgress() {
  if (!redraw_ || first_ < 0) return;
  std::fputs("\r\x1b[K", out_);
  std::fflush(out_);
}

void ShareProgress::show(double share) {
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  if (first_ < 0) first_ = share;
  if (seconds - last_shown_ < (redraw_ ? 0.2 : 10)) return;
  last_shown_ = seconds;
  std::string time = duration_text(seconds);
  if (share > first_)
    time += ", " + duration_text(seconds * (1 - share) / (share - first_)) + " left";
  std::fprintf(out_, "%s%s  %.1f %%  %s%s", redraw_ ? "\r" : "", label_.c_str(), 100 * share,
               time.c_str(), redraw_ ? "\x1b[K" : "\n");
  std::fflush(out_);
}

}  // namespace focus
