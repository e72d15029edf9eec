// What the GPU at hand can do, one number after the other: the constants behind the predictions in
// cuda/README.md. Each probe is a kernel that does one thing and little else.
#pragma once

#include <string>
#include <vector>

namespace focus::gpu {

struct Probe {
  std::string name;
  double value;                 // the median, in `unit`
  double quartile1, quartile3;  // of the runs
  std::string unit;
};

// How much each probe does. Tests on the emulator take less of everything.
struct ProbeSize {
  int runs = 21;
  int iterations = 4096;  // of arithmetic, in each thread
  int blocks_per_multiprocessor = 4;
  int table_rows = 1 << 17;   // of 128 bytes: 16 MiB, less than the second-level cache
  int rows_per_thread = 256;  // read, or added to
  int launches = 200;         // of the empty kernel
  int barriers = 1000;
};

// All of them. RunError if a kernel's result is not what it must be, so that no time is that of
// work left undone. Probes that this device cannot run are left out.
std::vector<Probe> probe_device(const ProbeSize& size = {});

}  // namespace focus::gpu
