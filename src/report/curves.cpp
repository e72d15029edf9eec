#include "report/curves.h"

#include <cstdio>
#include <iostream>
#include <optional>

#include "clock.h"
#include "error.h"
#include "report/progress.h"
#include "report/statistics.h"
#include "report/terminal.h"
#include "report/text_plot.h"

namespace focus {

std::vector<std::vector<double>> VariantResult::values(double EpochMetrics::*metric) const {
  std::vector<std::vector<double>> all;
  for (const std::vector<EpochMetrics>& curve : curves) {
    std::vector<double>& one = all.emplace_back();
    for (const EpochMetrics& row : curve) one.push_back(row.*metric);
  }
  return all;
}

Panel curve_panel(const std::vector<VariantResult>& results, double EpochMetrics::*metric,
                  const std::string& title, const std::string& y_label) {
  Panel panel;
  panel.title = title;
  panel.x_label = "epoch";
  panel.y_label = y_label;
  for (const VariantResult& result : results) {
    const Band band = quartile_band(result.values(metric));
    Series series{result.name, {}, band.middle, band.low, band.high};
    for (size_t e = 0; e < band.middle.size(); ++e) series.x.push_back(double(e + 1));
    panel.series.push_back(std::move(series));
  }
  return panel;
}

std::vector<std::optional<int>> epochs_to_accuracy(const VariantResult& result, double percent) {
  std::vector<std::optional<int>> epochs;
  for (const std::vector<double>& curve : result.values(&EpochMetrics::train_accuracy))
    epochs.push_back(epochs_to(curve, percent));
  return epochs;
}

std::string epochs_table(const std::vector<VariantResult>& results, double percent) {
  std::string table = str("epochs to ", percent, " % training accuracy, a column for each seed\n");
  char cell[64];
  for (const VariantResult& result : results) {
    std::snprintf(cell, sizeof cell, "  %-14s", result.name.c_str());
    table += cell;
    const auto epochs = epochs_to_accuracy(result, percent);
    for (const std::optional<int>& e : epochs) {
      std::snprintf(cell, sizeof cell, "%6s", epochs_text(e).c_str());
      table += cell;
    }
    table += "   median " + epochs_text(median_epochs(epochs)) + "\n";
  }
  return table;
}

LiveCurves::LiveCurves(std::string title, int epochs)
    : title_(std::move(title)),
      epochs_(epochs),
      redraw_(is_terminal(stdout)),
      start_(seconds_now()) {}

void LiveCurves::show(const std::vector<VariantResult>& results, double share) {
  const double elapsed = seconds_now() - start_, left = elapsed * (1 - share) / share;
  const int percent = int(100 * share + 1e-9);
  std::string status =
      str(percent, " % done, ", duration_text(elapsed), " gone, ", duration_text(left), " left");
  if (!redraw_) {
    if (percent < last_percent_ + 10 && (percent < 100 || last_percent_ == 100)) return;
    last_percent_ = percent;
    for (const VariantResult& result : results)
      if (const auto middle = quartile_band(result.values(&EpochMetrics::train_accuracy)).middle;
          !middle.empty())
        status += str("; ", result.name, " ", int(middle.back()), " %");
    std::cout << status << std::endl;
    return;
  }
  Panel panel = curve_panel(results, &EpochMetrics::train_accuracy, title_, "training accuracy, %");
  panel.x_range = {0, double(epochs_)};
  panel.y_range = {40, 100};
  std::string text =
      text_plot(panel, std::min(terminal_width(stdout), 100), 20, wants_colour(stdout));
  text += status + "\x1b[K\n";
  if (lines_ > 0) std::cout << "\x1b[" << lines_ << "A";
  std::cout << text << std::flush;
  lines_ = 0;
  for (char c : text) lines_ += c == '\n';
}

}  // namespace focus
