// Settings that differ, for messages: in what, and which of many come nearest.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "train/settings.h"

namespace focus {

// "lr is 0.1 there, 0.2 here" for each setting that differs.
std::vector<std::string> differences(const RunSettings& there, const RunSettings& here);

// What of `all` differs in the fewest settings, of equal ones the first.
template <class T>
auto nearest_to(const RunSettings& settings, const std::vector<T>& all) {
  return std::ranges::min_element(
      all, {}, [&](const T& other) { return differences(settings, other.settings).size(); });
}

}  // namespace focus
