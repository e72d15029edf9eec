// Training one set of settings with several seeds, and the folder it leaves behind:
//
//   DIR/settings.json                       what was asked for
//   DIR/metrics.csv                         a line for each epoch and seed
//   DIR/seed-S/{last,best}.safetensors      after the last epoch; at the best held-out accuracy
//
// A kill at any moment loses at most the epoch under way, and on a device the one before it where
// that is still on its way to the disk. An interrupt (stop) finishes the step,
// saves and returns; resuming continues in the middle of the epoch, to the same bytes as if never
// stopped.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <vector>

#include "files/metrics.h"
#include "train/settings.h"

namespace focus {

struct TrainPlan {
  RunSettings settings;
  std::vector<uint64_t> seeds;
  int threads = 1;
  std::string device = "cpu";  // or "cuda"
  std::filesystem::path out;
  // On a device: "auto" takes its step kernel when it has one for the model, "off" never.
  std::string step_kernel = "auto";
};

// What a caller sees and controls while the runs go on. The callback is called once for each epoch
// and seed, never at the same time twice.
struct TrainObserver {
  const std::atomic<bool>* stop = nullptr;
  std::function<void(const EpochMetrics&)> on_epoch = {};
  std::function<void(const std::string&)> on_note = {};  // one line, before the first epoch
};

struct TrainResult {
  bool finished = false;              // false: interrupted, and saved
  std::vector<EpochMetrics> metrics;  // by epoch, then seed
};

// Starts new runs. InputError when DIR already holds a run, or anything else is wrong with the
// plan; nothing has been written then. RunError on a NaN or Inf loss.
TrainResult train(const TrainPlan& plan, const TrainObserver& observer = {});

// Goes on with the runs in DIR, to `epochs` epochs, with `threads` threads (0: as settings.json
// says) and on `device` (empty: likewise). A finished run returns at once, and its files are not
// touched. InputError when DIR holds no run or a damaged one, when it has more epochs already, and,
// as for train(), while another process trains there.
TrainResult resume(const std::filesystem::path& dir, int epochs, int threads,
                   const TrainObserver& observer = {}, const std::string& device = {});

// settings.json: {"format_version": "1", "seeds": "1,2", …, every setting as text}.
std::string plan_text(const TrainPlan& plan);
TrainPlan parse_plan(std::string_view json, const std::string& name);
TrainPlan read_plan(const std::filesystem::path& dir);

}  // namespace focus
