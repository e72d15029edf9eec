#include "study/deal.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace focus {

namespace {

// The pieces with each group in so many, on their devices.
std::vector<DealtPiece> lay_out(const std::vector<DealtGroup>& groups,
                                const std::vector<int>& pieces_of, int devices) {
  std::vector<DealtPiece> pieces;
  for (size_t g = 0; g < groups.size(); ++g)
    for (int p = 0, first = 0; p < pieces_of[g]; ++p) {
      const int count = (groups[g].runs - first) / (pieces_of[g] - p);
      pieces.push_back({g, first, count, 0, 0, groups[g].seconds(count), groups[g].fill_of(count)});
      first += count;
    }
  std::ranges::sort(pieces, {},
                    [](const DealtPiece& p) { return std::tuple(-p.end, p.group, p.first); });
  // What the pieces of a device fill of its time, and the longest that one of them goes on beside
  // that.
  struct Load {
    double filled = 0, beside = 0;
    double end() const { return filled + beside; }
  };
  std::vector<Load> loads{size_t(devices)};
  for (DealtPiece& piece : pieces) {
    const auto least = std::min_element(
        loads.begin(), loads.end(), [](const Load& a, const Load& b) { return a.end() < b.end(); });
    piece.device = int(least - loads.begin());
    piece.begin = least->filled;
    least->filled += piece.fill * piece.end;
    least->beside = std::max(least->beside, (1 - piece.fill) * piece.end);
    piece.end = least->end();
  }
  std::ranges::sort(pieces, {}, [](const DealtPiece& p) {
    return std::tuple(p.begin, p.device, p.group, p.first);
  });
  return pieces;
}

}  // namespace

std::vector<DealtPiece> deal(const std::vector<DealtGroup>& groups, int devices) {
  std::vector<int> pieces_of;
  double all = 0;
  for (const DealtGroup& g : groups) {
    const int most = std::max(1, g.most);
    pieces_of.push_back(1 + (g.runs - 1) / most);
    all += g.fill_of(g.runs) * g.seconds(g.runs);
  }
  std::vector<size_t> longest(groups.size());
  for (size_t g = 0; g < groups.size(); ++g) longest[g] = g;
  std::ranges::sort(longest, {},
                    [&](size_t g) { return std::pair(-groups[g].seconds(groups[g].runs), g); });
  double end = end_of(lay_out(groups, pieces_of, devices));
  for (const size_t g : longest) {
    if (groups[g].seconds(groups[g].runs) <= all / devices) break;
    std::vector<int> tried = pieces_of;
    for (int pieces = pieces_of[g] + 1; pieces <= std::min(groups[g].runs, devices); ++pieces) {
      tried[g] = pieces;
      if (const double e = end_of(lay_out(groups, tried, devices)); e < end)
        end = e, pieces_of[g] = pieces;
    }
  }
  return lay_out(groups, pieces_of, devices);
}

double end_of(const std::vector<DealtPiece>& pieces) {
  double end = 0;
  for (const DealtPiece& piece : pieces) end = std::max(end, piece.end);
  return end;
}

}  // namespace focus
