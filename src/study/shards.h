// Which runs of a study are made together on a device, what they cost there, and which of them one
// of several machines makes.
#pragma once

#include <string>
#include <vector>

#include "study/deal.h"
#include "study/study.h"
#include "train/scheduler.h"

namespace focus {

// Seconds that an epoch of a run takes, training and evaluation: by itself, and how many each
// further run of its group adds that a device makes beside it.
struct EpochCost {
  double alone = 1, each_more = 1;
};

// Runs that a device takes together: all their settings are equal but the rates, and the queries'
// and keys' scale and freeze.
struct RunGroup {
  std::vector<size_t> runs;  // indices into study.runs
  DealtGroup cost;
};

// The groups of these runs, in the order of their first ones, which have so many epochs left (one
// number for each run). costs: of each variant; empty: by the number of products. memory: bytes
// that a device has; 0: any number fits.
std::vector<RunGroup> groups_of(const Study& study, const std::vector<size_t>& runs,
                                const std::vector<int>& epochs_left,
                                const std::vector<EpochCost>& costs, double memory);
std::vector<DealtPiece> deal(const std::vector<RunGroup>& groups, int devices);

// The parties (train/scheduler.h) that devices make of these runs: dealt groups, with at least the
// share of a device that there is for each when all go at once, and at most `threads` at once in
// all: each keeps a core busy. Jobs are indices into `runs`.
std::vector<Party> parties_of(const Study& study, const std::vector<size_t>& runs,
                              const std::vector<int>& epochs_left,
                              const std::vector<EpochCost>& costs, int devices, double memory,
                              int threads);

// The runs of shard number `shard` of `shards`, counted from 1, as indices into study.runs. On a
// device groups are dealt to shards as to devices (deal.h), elsewhere runs, one by one.
std::vector<size_t> runs_of_shard(const Study& study, int shard, int shards, bool on_device);

}  // namespace focus
