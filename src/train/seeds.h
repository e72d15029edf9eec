// Which seeds the runs of an experiment have.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace focus {

// The seeds of the paper's ten runs.
std::span<const uint64_t> paper_seeds();
// N seeds: the first N of the paper's (N ≤ 10), or first, first+1, … when `first` is given.
std::vector<uint64_t> choose_seeds(int count, const uint64_t* first);

}  // namespace focus
