// Lesson 16: where does the time of a small model's step go? README.md has the predictions' reasons
// and the rule of the verdict.
#include "report/lesson.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>

#include "cuda/lesson/random_run.h"
#include "cuda/stepper/graph_stepper.h"
#include "error.h"
#include "files/atomic_file.h"
#include "files/rows.h"
#include "report/statistics.h"

using namespace focus;

namespace {

// The rule's.
constexpr double loss_limit = 2e-6, gradient_limit = 5e-6;  // medians over steps
constexpr double prediction_factor = 2;                     // either way
constexpr double least_gain[] = {2.5, 2};  // of one launch over the graph, for 1 run and for 10

constexpr int length = 40, blocks = 5, batch = 25;  // of the times
const char* const launch_names[] = {"operations", "graph", "one"};
const std::string attentions[] = {"full", "topk"};

using Fields = std::vector<std::string>;

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", x);
  return text;
}

std::string shown(const std::string& attention) {
  return attention == "topk" ? "top-5" : attention;
}

ModelSettings model(const std::string& attention, int tokens, int depth, double dropout) {
  ModelSettings s;
  s.attention = {pattern_of(attention), attention == "topk" ? 5 : 0, 0, 1, dropout};
  s.vocabulary = 17, s.classes = 10, s.length = tokens, s.blocks = depth, s.dropout = dropout;
  return s;
}

// --- how many kernels ----------------------------------------------------------------------------

// In a block of the model, and beside the blocks.
struct Launches {
  int in_a_block = 0, beside = 0;
  int all() const { return blocks * in_a_block + beside; }
};

Launches predicted_launches(const std::filesystem::path& folder) {
  Launches sum;
  for (const Fields& f : read_rows(folder / "launches.csv", 5)) {
    const int once = std::stoi(f[1]) + std::stoi(f[2]);
    sum.in_a_block += once * std::stoi(f[3]), sum.beside += once * std::stoi(f[4]);
  }
  return sum;
}

// Rows "attention,way,kernel,launches": of one step by operation, of three in one launch. A single
// sequence: the number of kernels is that of any batch.
std::vector<std::string> count_launches() {
  std::vector<std::string> rows;
  for (const std::string& attention : attentions) {
    const ModelSettings s = model(attention, length, blocks, 0.01);
    const StepSettings settings{.model = s, .batch = 1};
    gpu::RandomRun run(settings, 3, 1);
    gpu::GraphStepper list(settings, {run.step_run}, false, false);
    gpu::OneLaunch kernel(settings, {run.step_run});
    for (Stepper* stepper : {static_cast<Stepper*>(&list), static_cast<Stepper*>(&kernel)})
      stepper->load(0, run.model, run.optimizer);
    const auto count = [&](const char* way, const auto& work) {
      std::map<std::string, uint64_t> before;
      for (const auto& k : gpu::launches_so_far()) before[k.kernel] = k.launches;
      work();
      for (const auto& k : gpu::launches_so_far())
        if (const uint64_t n = k.launches - before[k.kernel]; n > 0)
          rows.push_back(str(attention, ",", way, ",", k.kernel, ",", n));
    };
    count("operations", [&] { list.train({run.epoch}, 0, 1, gpu::never_stop); });
    count("one launch of three steps", [&] { kernel.train({run.epoch}, 0, 3, gpu::never_stop); });
  }
  return rows;
}

struct Counted {
  std::map<std::string, int> operations, one;  // attention → kernels
};

Counted read_counted(const std::filesystem::path& file) {
  Counted counted;
  for (const Fields& f : read_rows(file, 4))
    (f[1] == "operations" ? counted.operations : counted.one)[f[0]] += std::stoi(f[3]);
  return counted;
}

// --- are the steps the same? ---------------------------------------------------------------------

// Rows "attention,step,loss,gradient": relative differences between a step in one launch and the
// same by operation. Every step from the same weights, those that the step before left.
std::vector<std::string> compare_steps(const Lesson& out, int steps) {
  std::vector<std::string> rows;
  for (const std::string& attention : attentions) {
    const ModelSettings s = model(attention, 11, 2, 0.1);
    const StepSettings settings{.model = s, .batch = 3};
    gpu::RandomRun run(settings, 3 * steps, 7), same(settings, 3 * steps, 7);
    gpu::GraphStepper list(settings, {run.step_run}, false, false);
    gpu::OneLaunch kernel(settings, {run.step_run});
    for (int n = 0; n < steps; ++n) {
      if (out.stop()) return {};
      gpu::shuffle_threads(uint64_t(n));
      same.set_weights(run.weights());
      const gpu::StepMade one = gpu::step_of(kernel, same, n);
      const gpu::StepMade wanted = gpu::step_of(list, run, n);
      rows.push_back(str(attention, ",", n + 1, ",", std::abs(one.loss / wanted.loss - 1), ",",
                         gpu::relative_distance(one.gradients, wanted.gradients)));
    }
    gpu::shuffle_threads(0);
  }
  return rows;
}

struct Differences {
  std::vector<double> loss, gradient;
};

Differences read_differences(const std::filesystem::path& file) {
  Differences d;
  for (const Fields& f : read_rows(file, 4))
    d.loss.push_back(std::stod(f[2])), d.gradient.push_back(std::stod(f[3]));
  return d;
}

// --- how long ------------------------------------------------------------------------------------

struct Time {
  std::string launch, attention;
  int runs = 0;
  double kernels = 0, floor = 0, predicted = 0, ms = 0, quartile1 = 0, quartile3 = 0;
};

const char* const time_columns =
    "launch,attention,runs,kernels_a_step,floor_ms,predicted_ms,ms,quartile1,quartile3";

// What tests/pytorch/record_launches.sh wrote, with the predictions.
std::vector<std::string> look_up_times(Lesson& out) {
  const std::filesystem::path recorded = "cuda/results/launch_rungs.csv";
  std::istringstream lines(read_file(recorded, 1 << 20));
  std::string first;
  std::getline(lines, first);
  out.note("times", first.substr(std::min<size_t>(2, first.size())));
  std::vector<std::string> rows;
  for (const Fields& p : read_rows(out.folder() / "predictions.csv", 4))
    for (const Fields& f : read_rows(recorded, 8))
      if (f[0] == p[0] && f[1] == p[1] && f[2] == p[2])
        rows.push_back(str(f[0], ",", f[1], ",", f[2], ",", f[3], ",", f[4], ",", p[3], ",", f[5],
                           ",", f[6], ",", f[7]));
  return rows;
}

std::vector<Time> read_times(const std::filesystem::path& file) {
  std::vector<Time> times;
  for (const Fields& f : read_rows(file, 9))
    times.push_back({f[0], f[1], std::stoi(f[2]), std::stod(f[3]), std::stod(f[4]), std::stod(f[5]),
                     std::stod(f[6]), std::stod(f[7]), std::stod(f[8])});
  if (times.size() != 12) fail_input(file.string(), ": ", times.size(), " times, not 12");
  return times;
}

// On which GPU: from the notes above the times.
std::string recorded_on(const std::filesystem::path& file) {
  const std::string text = read_file(file, 1 << 20), note = "# times: ";
  const size_t at = text.find(note);
  if (at == std::string::npos) fail_input(file.string(), ": no line ", note, "…");
  return text.substr(at + note.size(), text.find('\n', at) - at - note.size());
}

const Time& time_of(const std::vector<Time>& times, const std::string& launch,
                    const std::string& attention, int runs) {
  for (const Time& t : times)
    if (t.launch == launch && t.attention == attention && t.runs == runs) return t;
  fail_input("no time for ", launch, ", ", attention, ", ", runs, " run(s)");
}

std::string times_table(const std::vector<Time>& times) {
  std::string text =
      "| a step of | launched | kernels a step | predicted, ms | measured, ms | measured / floor "
      "|\n"
      "|---|---|---|---|---|---|\n";
  for (int runs : {1, 10})
    for (const std::string& attention : attentions)
      for (const char* launch : launch_names) {
        const Time t = time_of(times, launch, attention, runs);
        const std::string kernels =
            t.kernels < 1 ? str("1/", std::lround(1 / t.kernels)) : number(t.kernels);
        text += str("| ", runs, runs == 1 ? " run, " : " runs, ", shown(attention), " | ", launch,
                    " | ", kernels, " | ", number(t.predicted), " | ", number(t.ms), " | ",
                    number(t.ms / t.floor), " |\n");
      }
  return text;
}

std::string ratios_table(const std::vector<Time>& times) {
  std::string text =
      "| | operations / graph | graph / one | one launch: ten runs / one run "
      "|\n|---|---|---|---|\n";
  for (const std::string& attention : attentions)
    for (int runs : {1, 10}) {
      const auto ms = [&](const char* launch, int n) {
        return time_of(times, launch, attention, n).ms;
      };
      text += str("| ", runs, runs == 1 ? " run, " : " runs, ", shown(attention), " | ",
                  number(ms("operations", runs) / ms("graph", runs)), " | ",
                  number(ms("graph", runs) / ms("one", runs)), " | ",
                  runs == 10 ? number(ms("one", 10) / ms("one", 1)) : "", " |\n");
    }
  return text;
}

Figure times_figure(const std::vector<Time>& times) {
  Panel all{"A step of all runs", "predicted, ms", "measured, ms"};
  Panel each{"A step of each run", "runs together", "ms for each of them"};
  all.log_x = all.log_y = each.log_x = each.log_y = true;
  Series equal{"predicted = measured"};
  equal.style = Style::dashed, equal.x = equal.y = {0.1, 3};
  all.series = {equal};
  for (const char* launch : launch_names) {
    Series points{launch}, line{launch}, floor{"floor: multiply-adds of the whole GPU"};
    points.style = Style::points, floor.style = Style::dashed;
    for (const Time& t : times) {
      if (t.launch != launch) continue;
      points.x.push_back(t.predicted), points.y.push_back(t.ms);
      points.labels.push_back(t.attention == "full" ? str(t.runs) : "");
      if (t.attention != "full") continue;
      line.x.push_back(t.runs), line.y.push_back(t.ms / t.runs);
      floor.x.push_back(t.runs), floor.y.push_back(t.floor / t.runs);
    }
    all.series.push_back(points), each.series.push_back(line);
    if (std::string(launch) == "one") each.series.push_back(floor);
  }
  Figure figure{"The same training step: launched by operation, as a graph, in one launch",
                {all, each}};
  figure.caption =
      str("Length ", length, ", ", blocks, " blocks, width 64, batch ", batch,
          ", float32. Left: numbers are runs together, of full attention; the point beside it is "
          "top-5. Right: full attention.");
  return figure;
}

// --- the verdict ---------------------------------------------------------------------------------

std::string said(bool holds) {
  return holds ? "yes" : "NO";
}

int judge(Lesson& out, const Launches& predicted, const Counted& counted, const Differences& d,
          const std::vector<Time>& times) {
  bool as_counted = true, in_order = true, above = true, close = true;
  double least_a = HUGE_VAL, least[2] = {HUGE_VAL, HUGE_VAL}, furthest = 1;
  for (const std::string& attention : attentions) {
    as_counted &= counted.operations.at(attention) == predicted.all();
    as_counted &= counted.one.at(attention) == 1;
    for (int runs : {1, 10}) {
      const auto ms = [&](const char* launch) {
        return time_of(times, launch, attention, runs).ms;
      };
      least_a = std::min(least_a, ms("operations") / ms("graph"));
      double& gain = least[runs == 10];
      gain = std::min(gain, ms("graph") / ms("one"));
      in_order &= ms("operations") >= ms("graph") && gain >= least_gain[runs == 10];
    }
  }
  std::string far;
  for (const Time& t : times) {
    const double off = std::max(t.ms / t.predicted, t.predicted / t.ms);
    furthest = std::max(furthest, off);
    above &= t.ms >= t.floor;
    if (off <= prediction_factor) continue;
    close = false;
    far +=
        str(far.empty() ? " (beyond it: " : ", ", t.launch, ", ", t.runs, " ", shown(t.attention),
            ": predicted ", number(t.predicted), ", measured ", number(t.ms));
  }
  if (!far.empty()) far += ")";
  const double loss = median(d.loss), gradient = median(d.gradient);
  const bool same = loss <= loss_limit && gradient <= gradient_limit;
  return out.verdict(
      as_counted && same && in_order && close && above,
      str("1. kernels a step as predicted: ", said(as_counted), " (", predicted.all(),
          " by operation predicted, ", counted.operations.at("full"), " and ",
          counted.operations.at("topk"), " counted; 1 for any number of steps); 2. the same step: ",
          said(same), " (medians: loss ", number(loss), ", gradient ", number(gradient),
          "); 3. operations ≥ graph > one launch: ", said(in_order), " (operations at least ",
          number(least_a), " times the graph; the graph at least ", number(least[0]),
          " times one launch for 1 run, ", number(least[1]), " for 10); 4. times within a factor ",
          prediction_factor, " of what was predicted: ", said(close), " (at most ",
          number(furthest), ")", far, "; 5. no time below its floor: ", said(above)));
}

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-16", "where does the time of a small model's step go?");
  out.note("settings", "counted and compared on the CPU by emulation; times recorded on a GPU");
  const Launches predicted = predicted_launches(out.folder());
  if (!out.options().redraw) {
    std::cout << "counting the kernels of a step of " << length << " tokens, " << blocks
              << " blocks" << std::endl;
    out.table("attention,way,kernel,launches", count_launches(), "counted.csv");
    const int steps = out.options().demo_scale ? 5 : 50;
    std::cout << "comparing " << steps << " steps in one launch with steps by operation"
              << std::endl;
    const std::vector<std::string> rows = compare_steps(out, steps);
    if (rows.empty()) return out.interrupted();
    out.table("attention,step,loss,gradient", rows, "compared.csv");
    out.table(time_columns, look_up_times(out));
  }
  // What is shown now and what is drawn again later are the same numbers.
  const std::filesystem::path from = out.options().redraw ? out.recorded() : out.options().out;
  const Counted counted = read_counted(from / "counted.csv");
  const Differences differences = read_differences(from / "compared.csv");
  const std::vector<Time> times = read_times(from / "results.csv");
  std::cout << "\nkernels of a step by operation: " << predicted.in_a_block << " in each of "
            << blocks << " blocks and " << predicted.beside << " beside them, " << predicted.all()
            << " predicted; " << counted.operations.at("full") << " counted (full), "
            << counted.operations.at("topk") << " (top-5)\n\n"
            << times_table(times) << "\n"
            << ratios_table(times) << std::endl;
  out.page_table("times.md", str(recorded_on(from / "results.csv"), ":\n\n", times_table(times)));
  out.page_table("ratios.md", ratios_table(times));
  out.figure(times_figure(times));
  return judge(out, predicted, counted, differences, times);
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
