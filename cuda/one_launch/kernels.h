// What one_launch.cu asks of the kernels, which step_*.cu compile: one set for each precision.
// mask_bytes: of all masks of a sequence.
//
// In step_fp32.cu, ../fast/one_launch/step_*.cu.
#pragma once

#include <cstddef>

#include "error.h"
#include "tensor/precision.h"

namespace focus::gpu::one_launch {

struct Plan;

template <Precision P>
struct Step {
  static size_t shared_bytes(int length, int mask_bytes);
  static int training_blocks_at_once(int length, int mask_bytes);
  static void train(const Plan& plan, int mask_bytes, void* stream);
  static void evaluate(const Plan& plan, void* stream);
};

// A student's tree has the float32 kernels alone: the others would only be waited for.
#if __has_include("cuda/fast/one_launch/step_tf32.cu")
inline constexpr bool has_tensor_cores = true;
#else
inline constexpr bool has_tensor_cores = false;
#endif

// f(Step<P>()) for a precision that is known at run time.
template <class F>
auto with_step(Precision precision, const F& f) {
  if constexpr (has_tensor_cores) {
    switch (precision) {
      case Precision::tf32x3:
        return f(Step<Precision::tf32x3>());
      case Precision::tf32:
        return f(Step<Precision::tf32>());
      case Precision::bf16:
        return f(Step<Precision::bf16>());
      case Precision::fp32:
        break;
    }
  }
  if (precision != Precision::fp32)
    fail_input("--precision ", name_of(precision), ": this tree has kernels for fp32 only");
  return f(Step<Precision::fp32>());
}

}  // namespace focus::gpu::one_launch
