// Progress of training, for one run or several at once.
//
// On a terminal one line is redrawn in place:
//   even pairs, topk(5)  [########------------]  epoch 12/30  loss 0.0412  accuracy 98.73 %
//   0:13, 0:19 left
// (in one line). Elsewhere, in a log or a pipe, finished epochs are plain lines.
#pragma once

#include <chrono>
#include <cstdio>
#include <mutex>
#include <string>
#include <vector>

namespace focus {

// How far one run is: seed `seed` has finished `epoch` epochs, with these results of the last one.
struct EpochReport {
  unsigned long long seed;
  int epoch;
  double loss, accuracy;  // accuracy in percent
};

class Progress {
 public:
  struct Options {
    std::string label = {};  // before the bar
    int runs = 1;            // seeds that report
    int epochs = 1;          // of each run
    // Epochs that the runs had before they were resumed; a run's first report gives the exact
    // number.
    int first_epoch = 0;
    std::FILE* out = stderr;
    double plain_seconds = 0;  // at least this long between plain lines; a run's last always comes
  };

  explicit Progress(Options options);
  // Leaves the cursor on a new line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Run `run` (0 … runs-1) has finished an epoch. From any thread.
  void report(int run, const EpochReport& report);

  // Prints a line of text without disturbing the bar. From any thread.
  void say(const std::string& line);

  // The bar's line for a number of seconds since the start, without colours, at most `width`
  // columns: with several runs the mean epoch, and the median loss and accuracy.
  // Not to be called while others report.
  std::string bar_line(double seconds, int width) const;

 private:
  struct Run {
    int first_epoch;  // epochs it had before this program began
    bool reported = false;
    EpochReport latest = {};
  };

  const Options options_;
  const bool redraw_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::mutex mutex_;  // guards what follows
  std::vector<Run> runs_;
  double last_plain_ = -1e9;  // when the last plain line was printed, in seconds
};

// "0:07", "12:34", "1:02:03", "4 days".
std::string duration_text(double seconds);
// "0.6931", "1.000e+13": four digits behind the point, as wide for losses of any size.
std::string loss_text(double loss);

}  // namespace focus
