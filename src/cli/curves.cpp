// focus curves: the learning curves of runs, beside each other.
#include "report/curves.h"

#include "cli/command.h"
#include "error.h"
#include "files/metrics.h"
#include "report/svg_plot.h"
#include "report/terminal.h"
#include "report/text_plot.h"
#include "train/store.h"

namespace focus {

namespace {

struct Metric {
  const char *name, *title, *unit;
  double EpochMetrics::*value;
};
constexpr Metric metrics[] = {
    {"train-loss", "training loss", "nats", &EpochMetrics::train_loss},
    {"train-accuracy", "training accuracy", "percent", &EpochMetrics::train_accuracy},
    {"val-loss", "held-out loss", "nats", &EpochMetrics::val_loss},
    {"val-accuracy", "held-out accuracy", "percent", &EpochMetrics::val_accuracy}};

const Metric& metric_of(const std::string& name) {
  for (const Metric& m : metrics)
    if (name == m.name) return m;
  fail_input("--metric ", name, ": use train-loss, train-accuracy, val-loss or val-accuracy");
}

// A run's folder: its name in the legend, and a curve for each seed that has made an epoch.
VariantResult curves_of(const std::filesystem::path& dir, std::string& task) {
  const TrainPlan plan = read_plan(dir);
  const RunSettings& s = plan.settings;
  task = s.task;
  VariantResult result{attention_text(s), {}};
  if (s.precision != Precision::fp32) result.name += str(" ", name_of(s.precision));
  std::map<uint64_t, std::vector<EpochMetrics>> by_seed;
  for (const EpochMetrics& row : read_metrics(dir / "metrics.csv"))
    by_seed[row.seed].push_back(row);
  for (auto& [seed, curve] : by_seed) {
    if (curve.back().epoch != int(curve.size()))
      fail_input((dir / "metrics.csv").string(), ": seed ", seed, " lacks an epoch");
    result.curves.push_back(std::move(curve));
  }
  if (result.curves.empty()) fail_input("'", dir.string(), "' has no whole epoch yet");
  return result;
}

int curves_command(const Arguments& arguments) {
  const Metric& metric = metric_of(arguments.text("metric"));
  std::vector<VariantResult> results;
  std::string title;
  for (const std::string& dir : arguments.words) {
    std::string task;
    VariantResult one = curves_of(dir, task);
    if (title.find(task) == std::string::npos) title += (title.empty() ? "" : ", ") + task;
    // Two runs of one name are told apart by their folders.
    for (VariantResult& other : results)
      if (other.name == one.name) one.name += " (" + dir + ")";
    results.push_back(std::move(one));
  }
  const Panel panel = curve_panel(results, metric.value, metric.title, metric.unit);
  if (arguments.given("out")) {
    const std::string& file = arguments.file("out");
    std::string why_not;
    const Figure figure{title, {panel}, 1, "Median over the seeds, and the quartiles' band."};
    if (!write_figure(figure, file, &why_not)) fail_input(file, ": ", why_not);
    print(file + "\n");
    return 0;
  }
  print(text_plot(panel, std::min(terminal_width(stdout), 100), 20, wants_colour(stdout)));
  return 0;
}

}  // namespace

std::vector<Command> curve_commands() {
  Command curves{"curves", "draw the learning curves of runs, beside each other"};
  curves.positionals = {{"DIR", "folders of runs (--out of 'focus train'); each is a curve", true}};
  curves.flags = {
      {"metric", "NAME", "train-loss, train-accuracy, val-loss or val-accuracy", "train-loss"},
      {"out", "FILE", "a picture, .svg or .png, drawn by gnuplot (default: as text)"}};
  curves.more =
      "At each epoch the median over a run's seeds, in a picture with the band between the\n"
      "quartiles, as far as the slowest seed has come.\n"
      "Example: focus curves out/full out/topk --metric val-accuracy --out curves.svg";
  curves.run = curves_command;
  return {curves};
}

}  // namespace focus
