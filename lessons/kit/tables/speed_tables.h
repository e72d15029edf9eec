// README's tables of speed, from the recorded measurements in tests/pytorch/results.
#pragma once

#include <filesystem>
#include <string>

namespace focus::kit {

// A training step on the CPU against eager PyTorch: medians over the rounds, and the ratio of the
// medians and of the minima. From cpu_step.csv.
std::string step_speed_table(const std::filesystem::path& csv);

// The attention kernels against PyTorch's, as ratios (their time over ours). From
// attention_h200.csv. `brief`: the largest shape's forward and forward + backward side by side;
// else every ratio with what was aimed at.
std::string kernel_speed_table(const std::filesystem::path& csv, bool brief);

// The ladder: each rung's idea, what was predicted for it and what was measured. From
// predicted_ms.csv and ladder_h200.csv, which names the device, in `folder`.
std::string ladder_table(const std::filesystem::path& folder);

// A training step on the GPU, PyTorch's and ours in each of three ways, with the floor; the
// recording's first line says on which. From gpu_step.csv.
std::string gpu_step_table(const std::filesystem::path& csv);

}  // namespace focus::kit
