// How steep a loss surface is: estimates of the Lipschitz constant from neighbouring grid points
// (paper, section on the loss surface; Figures 5 and 23-27).
//
// Of two neighbours along either axis the slope is |L − L'| / step, step being the distance of
// their coordinates. In the space of parameters they are about step·‖θ‖ apart, since a direction is
// as long as θ: the slope divided by ‖θ‖ is the loss's change per distance of weights.
#pragma once

#include <span>
#include <vector>

namespace focus {

// The slopes of all pairs of neighbours within [−radius, radius]². losses: (grid,grid), at the
// coordinates of surface.h's axis. Which points lie within is decided by their position, not by a
// division of rounded numbers. A slope at a loss that is not finite is infinite.
std::vector<double> neighbour_slopes(std::span<const double> losses, int grid, double range,
                                     double radius);

// Their percentiles. The authors take the upper ones of r = 0.01, 0.02, … 0.69.
struct SlopePercentiles {
  double p50, p75, p95, p99;  // NaN where the radius holds no pair of neighbours
};
SlopePercentiles slope_percentiles(std::span<const double> losses, int grid, double range,
                                   double radius);

}  // namespace focus
