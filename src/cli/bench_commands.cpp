// `focus bench`: a training step, and the GPU's kernels where the program has them. Apart from the
// other commands, because it alone is compiled with them in one way and without them in another.
#include "cli/command.h"

#ifdef FOCUS_KERNELS
namespace focus::gpu {
void register_device();  // cuda/stepper
}
#endif

namespace focus {

void add_bench_commands(CLI::App& focus) {
  CLI::App& bench = *add_group(focus, "bench", "measure speed");
  add_bench_step(bench);
#ifdef FOCUS_KERNELS
  add_bench_attention(bench);
  add_bench_one_launch(bench);
  add_bench_device(bench);
  gpu::register_device();
#endif
}

}  // namespace focus
