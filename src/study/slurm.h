// A study on a cluster: a job array over shards, and a job that joins them.
#pragma once

#include <filesystem>
#include <string>

namespace focus {

struct SlurmJob {
  std::filesystem::path program;  // absolute
  std::filesystem::path folder;   // of the study, absolute; holds study.csv
  int shards = 1;
  int threads = 1;             // of each shard
  std::string device = "cpu";  // each shard asks for GPUs, if it is another
  int gpus = 1;
};

// The scripts: array task I computes shard I into DIR/parts/I, and goes on where it was if it is
// submitted again; the second script merges the parts into DIR.
std::string shard_script(const SlurmJob& job);
std::string merge_script(const SlurmJob& job);

// Writes DIR/slurm/{shards,merge}.sh and submits them with sbatch, the second to start when all of
// the first have succeeded. Returns what to tell. InputError when sbatch is missing or refuses; the
// scripts then remain, to be submitted by hand.
std::string submit(const SlurmJob& job);

}  // namespace focus
