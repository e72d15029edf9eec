// focus curves: the learning curves of runs, beside each other.
#include "report/curves.h"

#include "cli/command.h"
#include "cli/loaded.h"
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
  fail_input("'", name,
             "' is not a metric: use train-loss, train-accuracy, val-loss or val-accuracy");
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

struct Curves {
  std::vector<std::string> folders;
  const Metric* metric = &metrics[0];
  std::string out;
};

int draw(const Curves& o) {
  check_new_file(o.out);
  std::vector<VariantResult> results;
  std::string title;
  for (const std::string& dir : o.folders) {
    std::string task;
    VariantResult one = curves_of(dir, task);
    if (title.find(task) == std::string::npos) title += (title.empty() ? "" : ", ") + task;
    // Two runs of one name are told apart by their folders.
    for (VariantResult& other : results)
      if (other.name == one.name) one.name += " (" + dir + ")";
    results.push_back(std::move(one));
  }
  const Metric& metric = *o.metric;
  const Panel panel = curve_panel(results, metric.value, metric.title, metric.unit);
  if (!o.out.empty()) {
    std::string why_not;
    const Figure figure{title, {panel}, 1, "Median over the seeds, and the quartiles' band."};
    if (!write_figure(figure, o.out, &why_not)) fail_input(o.out, ": ", why_not);
    print(o.out + "\n");
    return 0;
  }
  print(text_plot(panel, std::min(terminal_width(stdout), 100), 20, wants_colour(stdout)));
  return 0;
}

}  // namespace

void add_curve_commands(CLI::App& focus) {
  const auto [app, o] =
      add_command(focus, "curves", "draw the learning curves of runs, beside each other", draw);
  add_texts(app, "DIR", "", o.folders, "folders of runs (--out of 'focus train'); each is a curve")
      ->required();
  add_value(app, "--metric", "NAME", "train-loss, train-accuracy, val-loss or val-accuracy",
            [&metric = o.metric](const std::string& name) { metric = &metric_of(name); })
      ->default_str(o.metric->name);
  add_file(app, "--out", "FILE", o.out,
           "a picture, .svg or .png, drawn by gnuplot (default: as text)");
  add_footer(app,
             "At each epoch the median over a run's seeds, in a picture with the band between the\n"
             "quartiles, as far as the slowest seed has come.\n"
             "Example: focus curves out/full out/topk --metric val-accuracy --out curves.svg");
}

}  // namespace focus
