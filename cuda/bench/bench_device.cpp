// focus bench device: the constants of the GPU at hand, from which times are predicted.
#include <cstdio>
#include <string>

#include "cli/command.h"
#include "cuda/bench/measure.h"
#include "cuda/bench/microbenchmarks.h"
#include "error.h"
#include "files/atomic_file.h"

namespace focus {

namespace {

using namespace gpu;

struct Options {
  int repeats = 21;
  std::string csv;
};

int bench_device(const Options& o) {
  need_device("bench device");
  MicrobenchmarkSize size;
  size.runs = o.repeats;
  print(device_text() + "\n");
  std::string csv = "# " + device_text() + "\n";
  csv += str("# medians and quartiles of ", size.runs, " runs\n");
  csv += "what,median,quartile1,quartile3,unit\n";
  std::vector<Microbenchmark> results = run_microbenchmarks(size);
  const double copy = measure_roof().bytes / 1e12;
  results.push_back({"copy of 1 GiB, read plus written, the best of 10", copy, copy, copy, "TB/s"});
  for (const Microbenchmark& p : results) {
    char text[200];
    std::snprintf(text, sizeof text, "%-52s %10.4g  %9.4g-%-9.4g %s\n", p.name.c_str(), p.value,
                  p.quartile1, p.quartile3, p.unit.c_str());
    print(text);
    std::snprintf(text, sizeof text, "\"%s\",%.5g,%.5g,%.5g,%s\n", p.name.c_str(), p.value,
                  p.quartile1, p.quartile3, p.unit.c_str());
    csv += text;
  }
  if (!o.csv.empty()) write_file_atomically(o.csv, csv);
  return 0;
}

}  // namespace

void add_bench_device(CLI::App& bench) {
  const auto [app, o] = add_command(
      bench, "device", "measure what the GPU can do: arithmetic, memory, launches, barriers",
      bench_device);
  add_whole(app, "--repeats", o.repeats, 5, 1000, "runs of each kernel, at least 5");
  add_file(app, "--csv", "FILE", o.csv, "write the table here too");
  add_footer(
      app,
      "Each microbenchmark is a kernel that does one thing (cuda/bench/microbenchmarks.cu) and "
      "checks that "
      "it did.\n"
      "Predictions of the kernels' times in cuda/README.md start from these numbers.\n"
      "Example: focus bench device --csv device.csv");
}

}  // namespace focus
