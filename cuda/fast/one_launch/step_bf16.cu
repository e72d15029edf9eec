#include "cuda/one_launch/step.cuh"

namespace focus::gpu::one_launch {

template struct Step<Precision::bf16>;

}  // namespace focus::gpu::one_launch
