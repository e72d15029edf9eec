#include "analysis/lipschitz.h"

#include <cmath>

#include "report/statistics.h"

namespace focus {

std::vector<double> neighbour_slopes(std::span<const double> losses, int grid, double range,
                                     double radius) {
  const double step = 2 * range / (grid - 1);
  // Point a lies at (2a − (grid − 1)) · step/2. The margin takes in a point on the edge itself.
  const auto within = [&](int a) {
    return std::abs(2 * a - (grid - 1)) * step / 2 <= radius + 1e-9 * range;
  };
  const auto at = [&](int a, int b) { return losses[size_t(a) * size_t(grid) + size_t(b)]; };
  std::vector<double> slopes;
  const auto add = [&](double from, double to) {
    const double slope = std::abs(to - from) / step;
    slopes.push_back(slope == slope ? slope : HUGE_VAL);
  };
  for (int a = 0; a < grid; ++a)
    for (int b = 0; b < grid; ++b) {
      if (!within(a) || !within(b)) continue;
      //@ gap 13 neighbours
      const double here = at(a, b);
      if (a + 1 < grid && within(a + 1)) add(here, at(a + 1, b));
      if (b + 1 < grid && within(b + 1)) add(here, at(a, b + 1));
      //@ end
    }
  return slopes;
}

SlopePercentiles slope_percentiles(std::span<const double> losses, int grid, double range,
                                   double radius) {
  const std::vector<double> slopes = neighbour_slopes(losses, grid, range, radius);
  return {quantile(slopes, 0.5), quantile(slopes, 0.75), quantile(slopes, 0.95),
          quantile(slopes, 0.99)};
}

}  // namespace focus
