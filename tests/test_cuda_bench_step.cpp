// What `focus bench step --device cuda` times, in its four ways.
#include <doctest/doctest.h>

#include "cli/bench_device.h"
#include "cuda/ops/ops.h"

using namespace focus;

TEST_SUITE_BEGIN("training");  // slow: tests/run.sh runs them beside the others

TEST_CASE("bench step: by operations, as a graph, fused and in one launch") {
  ModelSettings s;
  s.attention = {Pattern::topk, 2, 0, 1, 0.1};
  s.vocabulary = 5, s.classes = 3, s.length = 4, s.blocks = 1, s.dropout = 0.1;
  gpu::CudaOps device;
  double operations = 0;
  for (StepLaunch how :
       {StepLaunch::operations, StepLaunch::graph, StepLaunch::fused, StepLaunch::one}) {
    DeviceTrainees trainees(device, s, OptimizerKind::sgd, 1, 2, how);
    CHECK(trainees.run() > 0);
    const double kernels = trainees.kernels_a_step();
    if (how == StepLaunch::operations) operations = kernels;
    if (how == StepLaunch::graph) CHECK(kernels == operations);
    if (how == StepLaunch::fused) CHECK(kernels < operations);
    if (how == StepLaunch::one) CHECK(kernels == 1.0 / trainees.steps_a_time());
  }
  CHECK(operations > 10);
}

TEST_SUITE_END();
