#include "cuda/lesson/ladder_lesson.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

#include "cuda/simt/count.h"
#include "error.h"
#include "files/rows.h"

namespace focus::gpu {

namespace {

// An H200's multiprocessors pass 128 bytes a cycle each, be it a line or a cycle of the banks; its
// lanes do 2 operations a cycle each. Both at its highest clock, as in cuda/results.
constexpr double path_bytes = 132 * 128 * 1.98e9, operations = 66.9e12;
constexpr double close_enough = 0.05, largest_error = 1e-5;  // the rule's

double pairs_of(const RungResult& r) {
  const double rows = double(r.size.B) * r.size.H * r.size.T;
  const bool all = r.pattern == "full" || (r.pattern == "topk" && r.pass == "forward");
  return rows * (all ? r.size.T : r.size.kept);
}

Pass pass_of(const RungResult& r) {
  return r.pass == "forward" ? Pass::forward : Pass::backward;
}

// The first fields of both tables: rung,pass,pattern,batch,heads,length,width,k,lines,cycles.
RungResult prediction(const std::vector<std::string>& f) {
  RungResult r;
  r.rung = std::stoi(f[0]), r.pass = f[1], r.pattern = f[2];
  r.size = {std::stoi(f[3]), std::stoi(f[4]), std::stoi(f[5]), std::stoi(f[6]), std::stoi(f[7]), 0};
  r.predicted = {std::stod(f[8]), std::stod(f[9])};
  return r;
}

void measure(RungResult& r) {
  const Pattern pattern = pattern_of(r.pattern);
  const auto rung = std::find_if(ladder().begin(), ladder().end(), [&](const Rung& x) {
    return x.number == r.rung && x.pass == pass_of(r) && x.has_pattern(pattern);
  });
  if (rung == ladder().end()) fail_input("predictions.csv: there is no rung ", r.rung, " ", r.pass);
  AttentionBench bench(pattern, r.size);
  r.error = bench.check(rung->pass, *rung, 1);
  bench.set_inputs(2, false);
  simt::take_traffic();
  bench.run(rung->pass, *rung);
  simt::Traffic sum;
  for (const simt::KernelTraffic& kernel : simt::take_traffic()) sum += kernel.traffic;
  const double pairs = pairs_of(r);
  r.counted = {double(sum.global_lines) / pairs, double(sum.shared_cycles) / pairs};
  r.atomics = double(sum.atomics) / pairs;
  r.operations_per_byte = work_of(pattern, rung->pass, r.size).useful /
                          (128 * double(sum.global_lines + sum.shared_cycles));
}

// Median times at (16,16,2048,64), with an empty cache, and what was predicted for them.
void look_up(RungResult& r) {
  for (const auto& f : read_rows("cuda/results/predicted_ms.csv", 5))
    if (std::stoi(f[0]) == r.rung && f[1] == r.pass && f[2] == r.pattern) r.predicted_ms = f[4];
  for (const auto& f : read_rows("cuda/results/ladder_h200.csv", 20))
    if (std::stoi(f[0]) == r.rung && f[2] == r.pass && f[3] == r.pattern)
      r.h200_ms = std::stod(f[10]), r.h200_tflops = std::stod(f[15]),
      r.h200_percent = std::stod(f[18]);
}

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.5g", x);
  return text;
}

std::string csv(const RungResult& r) {
  std::string row = str(r.rung, ",", r.pass, ",", r.pattern, ",", r.size.B, ",", r.size.H, ",",
                        r.size.T, ",", r.size.D, ",", r.size.kept);
  for (double x : {r.predicted.lines, r.predicted.cycles, r.counted.lines, r.counted.cycles,
                   r.atomics, r.operations_per_byte, r.error})
    row += str(",", number(x));
  return row;
}

std::vector<RungResult> read_results(const std::filesystem::path& file) {
  std::vector<RungResult> results;
  for (const auto& f : read_rows(file, 15)) {
    RungResult& r = results.emplace_back(prediction(f));
    double* values[] = {&r.counted.lines, &r.counted.cycles, &r.atomics, &r.operations_per_byte,
                        &r.error};
    for (size_t i = 0; i < std::size(values); ++i) *values[i] = std::stod(f[10 + i]);
    look_up(r);
  }
  return results;
}

void print(const RungResult& r) {
  char line[160];
  const auto wanted = [](double x) { return x < 0 ? std::string("–") : number(x); };
  std::snprintf(line, sizeof line,
                "%-22s T %4d  lines %8s (predicted %s)  shared cycles %8s (predicted %s)",
                r.name().c_str(), r.size.T, number(r.counted.lines).c_str(),
                wanted(r.predicted.lines).c_str(), number(r.counted.cycles).c_str(),
                wanted(r.predicted.cycles).c_str());
  std::cout << line << std::endl;
}

bool agrees(double predicted, double counted) {
  return predicted < 0 || std::abs(counted - predicted) <= close_enough * predicted;
}

}  // namespace

void write_rung_table(Lesson& out, const std::vector<RungResult>& results) {
  std::string text =
      "| rung | pass | T counted | lines: predicted, counted | cycles: predicted, counted | "
      "predicted ms | H200 ms | TFLOP/s | % of roof | % of what its traffic allows |\n"
      "|---|---|---|---|---|---|---|---|---|---|\n";
  const auto three = [](double x) {
    char cell[32];
    std::snprintf(cell, sizeof cell, "%.3g", x);
    return std::string(cell);
  };
  const auto both = [&](double predicted, double counted) {
    char cell[64];
    std::snprintf(cell, sizeof cell, "%s, %.4g", predicted < 0 ? "–" : number(predicted).c_str(),
                  counted);
    return std::string(cell);
  };
  for (const RungResult& r : results) {
    const double allowed = std::min(operations, r.operations_per_byte * path_bytes) / 1e12;
    text += str("| ", r.name().substr(0, 2), " | ", r.name().substr(3), " | ", r.size.T, " | ",
                both(r.predicted.lines, r.counted.lines), " | ",
                both(r.predicted.cycles, r.counted.cycles), " | ",
                r.predicted_ms.empty() ? "–" : r.predicted_ms, " | ", three(r.h200_ms), " | ",
                three(r.h200_tflops), " | ", three(r.h200_percent), " | ",
                three(100 * r.h200_tflops / allowed), " |\n");
  }
  out.page_table("rungs.md", text);
}

std::string RungResult::name() const {
  const std::string which = pattern == "banded" || pattern == "block" ? pattern + " " : "";
  return str(rung < 10 ? "0" : "", rung, " ", which, pass);
}

std::vector<RungResult> rung_results(Lesson& out) {
  if (out.options().redraw) return read_results(out.recorded() / "results.csv");
  std::vector<std::string> rows;
  std::cout << "per pair of a query and a key, counted on the CPU:\n";
  for (const auto& fields : read_rows(out.folder() / "predictions.csv", 10)) {
    if (out.stop()) return {};
    RungResult r = prediction(fields);
    measure(r);
    print(r);
    rows.push_back(csv(r));
  }
  std::cout << "\n";
  out.table(
      "rung,pass,pattern,batch,heads,length,width,k,predicted_lines,predicted_cycles,"
      "counted_lines,counted_cycles,atomics,operations_per_byte,error",
      rows);
  // What is shown now and what is drawn again later are the same numbers.
  return read_results(out.options().out / "results.csv");
}

Figure ladder_figure(const std::string& title, const std::vector<RungResult>& results) {
  Panel traffic{"What a pair of query and key moves", "predicted", "counted"};
  Panel roof{"On an H200", "operations for each byte that passes", "TFLOP/s"};
  traffic.log_x = traffic.log_y = roof.log_x = roof.log_y = true;
  Series lines{"lines of global memory"}, cycles{"cycles of shared memory"};
  Series points[] = {{"forward"}, {"backward"}}, limit{"roof of these operations"};
  double least = HUGE_VAL, most = 0;
  for (const RungResult& r : results) {
    const std::string label = str(r.rung < 10 ? "0" : "", r.rung);
    const auto add = [&](Series& to, double x, double y) {
      to.x.push_back(x), to.y.push_back(y), to.labels.push_back(label);
    };
    if (r.predicted.lines > 0) add(lines, r.predicted.lines, r.counted.lines);
    if (r.predicted.cycles > 0) add(cycles, r.predicted.cycles, r.counted.cycles);
    for (double x : {r.predicted.lines, r.predicted.cycles})
      if (x > 0) least = std::min(least, x), most = std::max(most, x);
    add(points[r.pass == "backward"], r.operations_per_byte, r.h200_tflops);
  }
  lines.style = cycles.style = points[0].style = points[1].style = Style::points;
  Series equal{"predicted = counted"};
  equal.style = Style::dashed, equal.x = equal.y = {least / 2, most * 2};
  traffic.series = {equal, lines};
  if (!cycles.x.empty()) traffic.series.push_back(cycles);
  const double knee = operations / path_bytes;
  limit.x = {knee / 1000, knee, knee * 20};
  limit.y = {operations / 1000e12, operations / 1e12, operations / 1e12};
  roof.series = {limit};
  for (Series& s : points)
    if (!s.x.empty()) roof.series.push_back(s);
  Figure figure{title, {traffic, roof}};
  figure.caption =
      "Left: per pair, at the lengths of predictions.csv. Right: times recorded at batch 16, "
      "16 heads, length 2048, width 64; bytes: 128 for each line or cycle counted on the left; "
      "the roof: 66.9 TFLOP/s, or 33.5 TB/s through the multiprocessors. Numbers are rungs.";
  return figure;
}

LadderVerdict judge_ladder(const std::vector<RungResult>& results) {
  double error = 0, off = 0, percent = 0;
  std::string far;
  for (const RungResult& r : results) {
    if (!(r.error <= error)) error = r.error;
    percent = std::max(percent, r.h200_percent);
    for (const auto& [predicted, counted] :
         {std::pair{r.predicted.lines, r.counted.lines}, {r.predicted.cycles, r.counted.cycles}}) {
      if (predicted > 0) off = std::max(off, std::abs(counted / predicted - 1));
      if (!agrees(predicted, counted))
        far += str(far.empty() ? " (beyond it: " : ", ", r.name(), " counted ", number(counted),
                   ", predicted ", number(predicted));
    }
  }
  if (!far.empty()) far += ")";
  const bool right = error <= largest_error, counted = far.empty(), below = percent <= 100;
  const auto said = [](bool holds) { return holds ? "yes" : "NO"; };
  return {right && counted && below,
          str("1. every result within 1e-5 of double precision: ", said(right), " (at most ",
              number(error), "); 2. traffic within 5 % of what was predicted: ", said(counted),
              " (at most ", number(100 * off), " % off)", far,
              "; 3. no recorded time below its roof: ", said(below), " (at most ", number(percent),
              " % of it)")};
}

}  // namespace focus::gpu
