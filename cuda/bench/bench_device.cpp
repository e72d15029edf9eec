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

int bench_device_command(const Arguments& arguments) {
  need_device("bench device");
  MicrobenchmarkSize size;
  size.runs = int(arguments.whole("repeats", 5, 1000));
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
  if (arguments.given("csv")) write_file_atomically(arguments.file("csv"), csv);
  return 0;
}

}  // namespace

std::vector<Command> bench_device_commands() {
  Command c{"bench device", "measure what the GPU can do: arithmetic, memory, launches, barriers"};
  c.flags = {{"repeats", "N", "runs of each kernel, at least 5", "21"},
             {"csv", "FILE", "write the table here too"}};
  c.more =
      "Each microbenchmark is a kernel that does one thing (cuda/bench/microbenchmarks.cu) and "
      "checks that "
      "it did.\n"
      "Predictions of the kernels' times in cuda/README.md start from these numbers.\n"
      "Example: focus bench device --csv device.csv";
  c.run = bench_device_command;
  return {c};
}

}  // namespace focus
