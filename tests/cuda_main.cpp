// The entry point of the kernels' test programs. Without a GPU the device's program skips all of
// its tests, and says why; the emulated one runs everywhere.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "cuda/device/device.h"

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  if (const std::string problem = focus::gpu::device_problem(); !problem.empty()) {
    std::printf("skipped: the kernels on a GPU (%s)\n", problem.c_str());
    context.addFilter("test-case-exclude", "*");
  }
  return context.run();
}
