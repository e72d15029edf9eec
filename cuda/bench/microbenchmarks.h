// Measures the constants of this GPU that predictions of kernel times start from. Each
// microbenchmark is a kernel that does one thing and little else.
#pragma once

#include <string>
#include <vector>

namespace focus::gpu {

struct Microbenchmark {
  std::string name;
  double value;                 // the median, in `unit`
  double quartile1, quartile3;  // of the runs
  std::string unit;
};

// How much each does. Tests on the emulator take less of everything.
struct MicrobenchmarkSize {
  int runs = 21;
  int iterations = 4096;  // of arithmetic, in each thread
  int blocks_per_multiprocessor = 4;
  int table_rows = 1 << 17;   // of 128 bytes: 16 MiB, less than the second-level cache
  int rows_per_thread = 256;  // read, or added to
  int launches = 200;         // of the empty kernel
  int barriers = 1000;
};

// Runs all of them. RunError if a kernel's result is wrong, so that no time is that of skipped
// work. Leaves out those that this device cannot run.
std::vector<Microbenchmark> run_microbenchmarks(const MicrobenchmarkSize& size = {});

}  // namespace focus::gpu
