// What one_launch.cpp, which is plain C++, asks of step.cu. mask_bytes: of all masks of a sequence.
#pragma once

#include <cstddef>

namespace focus::gpu::one_launch {

struct Plan;

size_t shared_bytes(int length, int mask_bytes);
int training_blocks_at_once(int length, int mask_bytes);
void launch_training(const Plan& plan, int mask_bytes);
void launch_evaluation(const Plan& plan);

}  // namespace focus::gpu::one_launch
