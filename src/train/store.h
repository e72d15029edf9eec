// The folder of runs that have the same settings: those of 'focus train', or one of a study.
//
//   DIR/settings.json                  what was asked for
//   DIR/metrics.csv                    a line for each epoch and seed
//   DIR/seed-S/last.safetensors        where the run goes on
//   DIR/seed-S/best.safetensors        at the best held-out accuracy ('focus train')
//   DIR/seed-S/at-loss.safetensors     after the first epoch whose training loss is at most a given
//                                      one ('focus train --keep-at-loss')
//   DIR/outcome.txt                    once it is over: "finished", or why it ended (a study's run)
//
// Files are replaced whole, and a run's lines come before its checkpoint, so a kill at any moment
// leaves a folder that can be gone on with: what the checkpoint does not know is made again.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "files/folder.h"
#include "files/metrics.h"
#include "train/run.h"
#include "train/settings.h"

namespace focus {

struct TrainPlan {
  RunSettings settings;
  std::vector<uint64_t> seeds;
  int threads = 1;
  std::string device = "cpu";  // or "cuda"
  int gpus = 0;                // so many of them; 0: all; no part of settings.json
  std::filesystem::path out;
  // On a device: "auto" takes its step kernel when it has one for the model, "off" never.
  std::string step_kernel = "auto";
  double keep_at_loss = 0;   // see above; 0: no such checkpoint
  std::string program = {};  // of 'focus train': see program_text() in train/probe.h
};

// settings.json: {"format_version": "1", "seeds": "1,2", …, every setting as text}. Reading throws
// InputError.
std::string plan_text(const TrainPlan& plan);
TrainPlan parse_plan(std::string_view json, const std::string& name);
TrainPlan read_plan(const std::filesystem::path& dir);

inline constexpr const char* finished_text = "finished";  // the outcome of a run that is

class RunFolder {
 public:
  // Touches no file. plan.out is the folder.
  explicit RunFolder(const TrainPlan& plan) : plan_(plan), metrics_(path("metrics.csv")) {}

  std::filesystem::path path(const std::string& file) const { return plan_.out / file; }
  std::filesystem::path checkpoint(uint64_t seed, const char* name = "last") const;
  bool has_metrics() const { return kind_of(path("metrics.csv")) != PathKind::missing; }
  bool has_checkpoint(uint64_t seed) const {
    return kind_of(checkpoint(seed)) != PathKind::missing;
  }
  // "finished", or why the runs could not go on; nullopt: they are not over.
  std::optional<std::string> outcome() const;

  // The lines of metrics.csv, to go on after them.
  void load() { metrics_.load(); }
  std::vector<EpochMetrics> rows(uint64_t seed) const;
  // Takes a run's state from its last checkpoint and forgets the rows after it; writes nothing.
  // InputError when the checkpoint is damaged, of other data, or ahead of the rows.
  void restore(Run& run);

  // Makes the folder, in one that is there and locked, removes what a kill has left and writes
  // settings.json. What ended there goes on now.
  void begin() const;
  // Files that begin() and the first save() will make, for FolderLock.
  void announce(FolderLock& lock) const;

  // What a run leaves behind: lines, then checkpoints, then how it ended. Several threads may save
  // different seeds.
  void add(std::span<const EpochMetrics> rows) { metrics_.add(rows); }
  void save(uint64_t seed, Safetensors checkpoint, const std::vector<const char*>& copies) const;
  void end(const std::string& outcome) const;

 private:
  TrainPlan plan_;
  MetricsFile metrics_;
};

}  // namespace focus
