// Which runs of a study one of several machines makes.
#pragma once

#include <string>
#include <vector>

#include "study/study.h"

namespace focus {

// What the runs have in common that a device takes together: all settings but the
// rates, and the queries' and keys' scale and freeze.
std::string group_of(RunSettings settings);

// The runs of shard number `shard` of `shards`, counted from 1, as indices into study.runs. On a
// device groups are dealt, the longest first, each to the shard that has least to do; a group is
// halved only where there are more shards than groups. Elsewhere runs are dealt one by one.
std::vector<size_t> runs_of_shard(const Study& study, int shard, int shards, bool on_device);

}  // namespace focus
