#include "train/memory.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

namespace focus {

double least_bytes(const ModelSettings& s, OptimizerKind optimizer, int batch, int runs,
                   int at_once) {
  const double d = s.d_model, hd = d * s.attention.heads, f = s.d_mlp;
  const double weights = s.blocks * (4 * d * hd + 2 * d * f) + d * (s.vocabulary + s.classes);
  const double copies = optimizer == OptimizerKind::adam ? 4 : 2;
  // Kept for each token and block: queries, keys, values, heads' outputs, the hidden layer before
  // and after its activation, and both halves' normed inputs and sums.
  const double activations = s.blocks * (4 * hd + 2 * f + 4 * d) * s.length * batch;
  return sizeof(float) * (runs * weights * copies + at_once * activations);
}

double machine_bytes() {
  double bytes = std::numeric_limits<double>::infinity();
#ifdef _SC_PHYS_PAGES
  const long pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) bytes = double(pages) * double(page);
#endif
  // A container may use less: Linux tells it so here ("max" when there is no limit).
  double limit = 0;
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> limit && limit > 0)
    bytes = std::min(bytes, limit);
  return bytes;
}

void check_memory(const ModelSettings& settings, OptimizerKind optimizer, int batch, int runs,
                  int at_once) {
  constexpr double gigabyte = 1e9;
  const double needed = least_bytes(settings, optimizer, batch, runs, at_once);
  const double there = machine_bytes();
  if (needed <= there) return;
  fail_input("this needs at least ", std::ceil(needed / gigabyte),
             " GB of memory, and this machine offers ", std::floor(there / gigabyte),
             " GB: choose smaller --batch, --length, --blocks, --heads, --d-model or --d-mlp");
}

}  // namespace focus
