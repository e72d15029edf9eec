// Learning curves of an experiment as a panel and as a live plot.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "files/metrics.h"
#include "report/figure.h"

namespace focus {

// The results of one variant of an experiment: a curve for each seed, epoch by epoch.
struct VariantResult {
  std::string name;                               // as in figures and tables: "topk(5)"
  std::vector<std::vector<EpochMetrics>> curves;  // [seed][epoch]

  // One metric of every seed as plain numbers, for statistics and figures.
  std::vector<std::vector<double>> values(double EpochMetrics::*metric) const;
};

// One line per variant: the median over its seeds at each epoch, with the quartile band, up to the
// last epoch that all seeds have finished.
Panel curve_panel(const std::vector<VariantResult>& results, double EpochMetrics::*metric,
                  const std::string& title, const std::string& y_label);

// Epochs to `percent` training accuracy of each seed; none for a seed that did not get there.
std::vector<std::optional<int>> epochs_to_accuracy(const VariantResult& result, double percent);
// "6 6 5 none" and the median.
std::string epochs_table(const std::vector<VariantResult>& results, double percent);

// Shows an experiment while it runs: on a terminal a text plot redrawn in place, elsewhere a line
// now and then.
class LiveCurves {
 public:
  LiveCurves(std::string title, int epochs);
  // `share` of all work is done.
  void show(const std::vector<VariantResult>& results, double share);

 private:
  std::string title_;
  int epochs_;
  bool redraw_;
  int lines_ = 0;          // drawn last time
  int last_percent_ = -9;  // of the plain lines: the first at 1 %
  double start_;
};

}  // namespace focus
