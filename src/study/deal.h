// Which of several devices makes which runs, and for how long: longest first.
#pragma once

#include <algorithm>
#include <climits>
#include <cstddef>
#include <vector>

namespace focus {

// Runs that a device takes together, all alike.
struct DealtGroup {
  int runs = 1;
  double alone = 1;      // seconds that one of them takes on a device by itself
  double each_more = 0;  // that each further one beside it adds
  int most = INT_MAX;    // so many fit into a device's memory together
  double fill = 1;       // that each of them takes of a device, whose rest others can use

  double seconds(int count) const { return alone + (count - 1) * each_more; }
  double fill_of(int count) const { return std::min(1.0, count * fill); }
};

// Runs first … first+count-1 of a group, which one device makes together.
struct DealtPiece {
  size_t group = 0;
  int first = 0, count = 0;
  int device = 0;  // from 0
  double begin = 0, end = 0;
  double fill = 1;  // of the device
};

// Deals groups to devices, the longest piece first, each to the device that is done first (of equal
// ones the lower number; of equal pieces the earlier group's). Pieces that fill a part of a device
// are made side by side there: one more adds its part of its time. A group is one piece, unless it
// exceeds a device's memory, or takes longer than its share, the sum of all divided by the devices:
// then it is split by runs into as many equal pieces as end all work earliest. In the order in
// which the pieces begin.
std::vector<DealtPiece> deal(const std::vector<DealtGroup>& groups, int devices);

// When all work is done.
double end_of(const std::vector<DealtPiece>& pieces);

}  // namespace focus
