#include "cuda/one_launch/step.cuh"

namespace focus::gpu::one_launch {

template struct Step<Precision::tf32>;

}  // namespace focus::gpu::one_launch
