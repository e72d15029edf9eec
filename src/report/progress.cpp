#include "report/progress.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "report/statistics.h"
#include "report/terminal.h"

namespace focus {
namespace {

template <class... Args>
std::string format(const char* pattern, Args... args) {
  char text[200];
  std::snprintf(text, sizeof text, pattern, args...);
  return text;
}

}  // namespace

std::string duration_text(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return "?";
  const long long s = std::llround(seconds);
  if (s < 3600) return format("%lld:%02lld", s / 60, s % 60);
  if (s >= 100 * 3600) return format("%lld days", (s + 43200) / 86400);
  return format("%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
}

std::string loss_text(double loss) {
  if (std::isnan(loss)) return "nan";  // its sign means nothing
  return format(std::abs(loss) < 1e5 ? "%.4f" : "%.3e", loss);
}

Progress::Progress(Options options)
    : options_(std::move(options)),
      redraw_(is_terminal(options_.out)),
      runs_(size_t(std::max(1, options_.runs)), Run{options_.first_epoch}) {}

Progress::~Progress() {
  if (!redraw_) return;
  std::fputc('\n', options_.out);
  std::fflush(options_.out);
}

std::string Progress::bar_line(double seconds, int width) const {
  const double epochs = std::max(1, options_.epochs), runs = double(runs_.size());
  double finished = 0, before = 0;  // epochs of all runs; those before this program began
  std::vector<double> losses, accuracies;
  for (const Run& run : runs_) {
    before += run.first_epoch;
    finished += run.reported ? run.latest.epoch : run.first_epoch;
    if (!run.reported) continue;
    losses.push_back(run.latest.loss);
    accuracies.push_back(run.latest.accuracy);
  }
  const double share = std::clamp(finished / (runs * epochs), 0.0, 1.0);
  std::vector<std::string> parts;  // what is left out last comes first
  if (!losses.empty())
    parts = {"loss " + loss_text(median(losses)), format("accuracy %.2f %%", median(accuracies))};
  std::string time = duration_text(seconds);
  // Only the epochs that this program has done itself tell how fast it goes.
  if (finished > before && share < 1) {
    const double left = runs * epochs - finished;
    time += ", " + duration_text(seconds * left / (finished - before)) + " left";
  }
  parts.push_back(time);

  std::string label = options_.label + (options_.label.empty() ? "[" : "  [");
  std::string end = format("]  epoch %d/%d", int(finished / runs), options_.epochs);
  // On a narrow terminal first the bar gives way to the numbers, then the label, then numbers.
  const auto length = [&] { return int(label.size() + end.size()) + 1; };
  if (length() + 2 + int(parts[0].size()) > width) label = "[";
  for (const std::string& part : parts) {
    if (length() + 2 + int(part.size()) > width) break;
    end += "  " + part;
  }
  const int cells = std::clamp(width - length() + 1, 1, 20), filled = int(share * cells);
  const std::string bar(size_t(filled), '#'), rest(size_t(cells - filled), '-');
  return (label + bar + rest + end).substr(0, size_t(std::max(0, width)));
}

void Progress::report(int run, const EpochReport& report) {
  const std::lock_guard lock(mutex_);
  Run& reporting = runs_.at(size_t(run));
  if (!reporting.reported) reporting.first_epoch = report.epoch - 1;
  reporting.reported = true;
  reporting.latest = report;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  if (redraw_) {
    // The last column stays free: some terminals wrap as soon as it is written.
    const std::string line = bar_line(seconds, terminal_width(options_.out) - 1);
    std::fprintf(options_.out, "\r%s\x1b[K", line.c_str());
  } else if (report.epoch >= options_.epochs || seconds - last_plain_ >= options_.plain_seconds) {
    last_plain_ = seconds;
    std::fprintf(options_.out, "%s%sseed %llu  epoch %d/%d  loss %s  accuracy %.2f %%  %s\n",
                 options_.label.c_str(), options_.label.empty() ? "" : "  ", report.seed,
                 report.epoch, options_.epochs, loss_text(report.loss).c_str(), report.accuracy,
                 duration_text(seconds).c_str());
  }
  std::fflush(options_.out);
}

void Progress::say(const std::string& line) {
  const std::lock_guard lock(mutex_);
  std::fprintf(options_.out, "%s%s\n", redraw_ ? "\r\x1b[K" : "", line.c_str());
  std::fflush(options_.out);
}

}  // namespace focus
