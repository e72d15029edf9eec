// focus bench attention: the ladder of GPU kernels as a table.
#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>

#include "cli/command.h"
#include "cuda/bench/measure.h"
#include "error.h"
#include "files/atomic_file.h"

namespace focus {

namespace {

using namespace gpu;

// By the precision in which a rung makes most of its products.
double times_float32(const Rung& rung, Precision precision) {
  return focus::times_float32(rung.features.screening      ? Precision::bf16
                              : rung.features.tensor_cores ? precision
                                                           : Precision::fp32);
}

struct Table {
  std::string csv =
      "rung,kernel,pass,pattern,batch,heads,length,width,k,global_tokens,cold_ms,quartile1_ms,"
      "quartile3_ms,warm_ms,runs,useful_tflops,dense_tflops,gbytes_per_s,percent_of_roof,error\n";
  Roof roof;

  void add(Pattern pattern, const BenchSize& s, const Rung& rung, const Measurement& m) {
    const Work work = work_of(pattern, rung.pass, s);
    const char* pass = rung.pass == Pass::forward ? "forward" : "backward";
    // The larger of the two times that nothing can beat.
    const double operations = work.useful / times_float32(rung, s.precision);
    const double floor_ms = 1e3 * std::max(operations / roof.operations, work.bytes / roof.bytes);
    const double percent = 100 * floor_ms / m.cold;
    if (percent > 100)
      fail_run("rung ", m.rung, " takes ", m.cold, " ms, but ", floor_ms,
               " ms is the least possible: the measurement is wrong");
    const double useful = work.useful / m.cold / 1e9, dense = work.dense / m.cold / 1e9;
    const double gbytes = work.bytes / m.cold / 1e6;
    char text[300];
    std::snprintf(text, sizeof text,
                  "%3d  %-43s %-8s %10.4f %9.4f-%-9.4f %10.4f %8.2f %8.2f %7.0f %5.1f  %.1e\n",
                  m.rung, rung.name, pass, m.cold, m.quartile1, m.quartile3, m.warm, useful, dense,
                  gbytes, percent, m.error);
    print(text);
    std::snprintf(
        text, sizeof text,
        "%d,\"%s\",%s,%s,%d,%d,%d,%d,%d,%d,%.5f,%.5f,%.5f,%.5f,%d,%.3f,%.3f,%.1f,%.2f,%.2e\n",
        m.rung, rung.name, pass, name_of(pattern), s.B, s.H, s.T, s.D,
        pattern == Pattern::full ? 0 : s.kept, is_positional(pattern) ? s.global_tokens : 0, m.cold,
        m.quartile1, m.quartile3, m.warm, m.runs, useful, dense, gbytes, percent, m.error);
    csv += text;
  }

  void add_selection(AttentionBench& bench, const Rung& rung, int runs) {
    const double ms = bench.selection_ms(rung, runs);
    char text[200];
    std::snprintf(text, sizeof text, "%3d  %-43s %-8s %41.4f\n", rung.number,
                  "of which choosing the k best", "forward", ms);
    print(text);
    std::snprintf(text, sizeof text, "# selection,%d,%.5f\n", rung.number, ms);
    csv += text;
  }
};

void bench_ladder(Table& table, Pattern pattern, const BenchSize& size, int64_t only, int runs) {
  AttentionBench bench(pattern, size);
  for (const Rung& rung : ladder()) {
    if (!rung.has_pattern(pattern) || (only > 0 && rung.number != only)) continue;
    if (const std::string why = rung.unsupported(bench.call()); !why.empty())
      print(str("  ", rung.number, "  ", rung.name, ": not for this size: ", why, "\n"));
    else
      table.add(pattern, size, rung, bench.measure(rung.pass, rung, runs));
  }
  if (pattern != Pattern::topk || only > 0) return;
  Call call;
  call.q = heads_bhtd(nullptr, size.B, size.H, size.T, size.D), call.kept = size.kept;
  table.add_selection(bench, rung_for(pattern, Pass::forward, call), runs);
}

// Top-k beside dense attention over the length, with the number of tokens held.
void sweep(Table& table, BenchSize size, int runs) {
  print(
      "\ndense beside top-k, forward + backward, ms (cold):\n length      dense     top-k    "
      "ratio\n");
  const int tokens = size.B * size.T;
  int crossover = 0;
  for (int T = 64; T <= 8192; T *= 2) {
    if (tokens < T || T < size.kept) continue;
    size.T = T, size.B = tokens / T;
    double total[2] = {};
    for (int i = 0; i < 2; ++i) {
      const Pattern pattern = i == 0 ? Pattern::full : Pattern::topk;
      AttentionBench bench(pattern, size);
      for (Pass pass : {Pass::forward, Pass::backward}) {
        Call call;
        call.q = heads_bhtd(nullptr, size.B, size.H, size.T, size.D), call.kept = size.kept;
        const Rung& rung = rung_for(pattern, pass, call);
        const Measurement m = bench.measure(pass, rung, runs);
        total[i] += m.cold;
      }
    }
    if (crossover == 0 && total[1] < total[0]) crossover = T;
    char text[100];
    std::snprintf(text, sizeof text, "%7d %10.4f %9.4f %8.2f\n", T, total[0], total[1],
                  total[0] / total[1]);
    print(text);
    std::snprintf(text, sizeof text, "# sweep,%d,%.5f,%.5f\n", T, total[0], total[1]);
    table.csv += text;
  }
  print(crossover ? str("top-k is faster from length ", crossover, " on\n")
                  : std::string("top-k is nowhere faster\n"));
}

struct Options {
  std::optional<Pattern> pattern;  // none: all
  BenchSize size;
  int rung = 0, repeats = 20, sweep = 0;
  std::string csv;
};

int bench_attention(const Options& o) {
  need_device("bench attention");
  const BenchSize& size = o.size;
  if (size.kept > size.T) fail_input("--k: ", size.kept, " is not between 1 and ", size.T);
  if (size.global_tokens >= size.T)
    fail_input("--global-tokens: ", size.global_tokens, " is not between 0 and ", size.T - 1);
  Table table{.roof = measure_roof()};
  char text[400];
  std::snprintf(text, sizeof text,
                "%s\nroof: %.1f TFLOP/s float32, %.0f GB/s copy (measured)\n"
                "batch %d, heads %d, length %d, width %d, k %d, global tokens %d, precision %s, "
                "dropout %g\n",
                device_text().c_str(), table.roof.operations / 1e12, table.roof.bytes / 1e9, size.B,
                size.H, size.T, size.D, size.kept, size.global_tokens, name_of(size.precision),
                size.dropout);
  print(text);
  std::string header = "# " + std::string(text);
  for (size_t at = header.find('\n'); at + 1 < header.size(); at = header.find('\n', at + 1))
    header.insert(at + 1, "# ");
  table.csv = header + table.csv;
  for (Pattern pattern : {Pattern::full, Pattern::topk, Pattern::banded, Pattern::block}) {
    if (o.pattern && *o.pattern != pattern) continue;
    std::snprintf(text, sizeof text, "\n%s\n%3s  %-43s %-8s %10s %-19s %10s %8s %8s %7s %5s  %s\n",
                  name_of(pattern), "", "kernel", "pass", "cold ms", "  quartiles", "warm ms",
                  "TFLOP/s", "dense eq", "GB/s", "%roof", "error");
    print(text);
    bench_ladder(table, pattern, size, o.rung, o.repeats);
  }
  if (o.sweep == 1) sweep(table, size, o.repeats);
  if (!o.csv.empty()) write_file_atomically(o.csv, table.csv);
  return 0;
}

}  // namespace

void add_bench_attention(CLI::App& bench) {
  const auto [app, o] =
      add_command(bench, "attention", "time the GPU's attention kernels, from naive to optimised",
                  bench_attention);
  BenchSize& s = o.size;
  add_value(app, "--attention", "NAME", "full, topk, banded, block or all",
            [&pattern = o.pattern](const std::string& name) {
              if (name != "all") pattern = pattern_of(name);
            })
      ->default_str("all");
  add_whole(app, "--rung", o.rung, 0, 99, "this rung of the ladder only (0: all)");
  add_whole(app, "--batch", s.B, 1, 65536, "sequences");
  add_whole(app, "--heads", s.H, 1, 1024, "attention heads");
  add_whole(app, "--length", s.T, 1, 1 << 20, "tokens a sequence");
  add_whole(app, "--width", s.D, 1, 128, "channels of a head");
  add_whole(app, "--k", s.kept, 1, 1 << 20,
            "keys each query keeps, or the width of band and block");
  add_whole(app, "--global-tokens", s.global_tokens, 0, 1 << 20, "of the tokens, banded and block");
  add_name(app, "--precision", s.precision, precision_of,
           "rungs 18 and 19: fp32 (not at all), 3xtf32, tf32 or bf16");
  add_number(app, "--dropout", s.dropout, 0, 0.99,
             "on full attention's weights, where a rung knows it");
  add_whole(app, "--repeats", o.repeats, 5, 1000, "runs to time, at least 5 (slow rungs: 5)");
  add_whole(app, "--sweep", o.sweep, 0, 1, "1: then top-k beside dense over the length");
  add_file(app, "--csv", "FILE", o.csv, "write the table here too");
  add_footer(
      app,
      "Each rung is checked against the CPU in double before and after it is timed. Cold: with an\n"
      "empty second-level cache; warm: again and again. TFLOP/s counts what the result needs, the\n"
      "dense equivalent what dense attention would do. %roof: the least possible time, from the\n"
      "operations or the bytes, whichever is larger, over the cold time. Choosing: what the same\n"
      "kernel saves when the first k keys are every query's best.\n"
      "Example: focus bench attention --attention topk --length 2048 --k 5");
}

}  // namespace focus
