#include "study/shards.h"

#include <algorithm>
#include <map>
#include <set>

#include "error.h"
#include "study/names.h"

namespace focus {

namespace {

// Something that a shard takes whole: on a device the runs that are made together, elsewhere a run.
struct Unit {
  std::vector<size_t> runs;
  double cost = 1;
};

// Roughly what a run's products cost.
double products_of(const RunSettings& s) {
  const double rows = 3.0 * s.train_size + s.val_size, length = s.length;
  return s.epochs * rows * length * s.blocks *
         (double(s.d_model) * (4.0 * s.d_model * s.heads + 2.0 * s.d_mlp) +
          2.0 * length * s.d_model * s.heads);
}

std::vector<Unit> units_of(const Study& study, bool on_device, int shards) {
  std::vector<Unit> units;
  if (!on_device) {
    for (size_t i = 0; i < study.runs.size(); ++i) units.push_back({{i}});
    return units;
  }
  std::map<std::string, size_t> known;
  for (size_t i = 0; i < study.runs.size(); ++i) {
    const RunSettings& s = study.variants[study.runs[i].variant].settings;
    const auto [entry, is_new] = known.emplace(group_of(s), units.size());
    if (is_new) units.push_back({{}, 0});
    Unit& unit = units[entry->second];
    unit.runs.push_back(i);
    unit.cost = std::max(unit.cost, products_of(s));  // ten runs take little longer than one
  }
  // More shards than groups: the largest ones are halved.
  while (int(units.size()) < shards) {
    const auto large = std::max_element(
        units.begin(), units.end(),
        [](const Unit& a, const Unit& b) { return a.runs.size() < b.runs.size(); });
    if (large->runs.size() < 2) break;
    const auto middle = large->runs.begin() + ptrdiff_t(large->runs.size() / 2);
    Unit half{{middle, large->runs.end()}, large->cost};
    large->runs.erase(middle, large->runs.end());
    units.push_back(std::move(half));
  }
  std::stable_sort(units.begin(), units.end(),
                   [](const Unit& a, const Unit& b) { return a.cost > b.cost; });
  return units;
}

}  // namespace

std::string group_of(RunSettings s) {
  s.lr = s.lr_decay = s.qk_scale = s.qk_rate = 1;
  s.freeze_qk = false;
  return identity_text(s);
}

std::vector<size_t> runs_of_shard(const Study& study, int shard, int shards, bool on_device) {
  if (shards < 1 || shard < 1 || shard > shards)
    fail_input("--shard ", shard, "/", shards, ": give I/N with I from 1 to N");
  std::set<std::pair<double, int>> loads;  // and whose they are
  for (int i = 1; i <= shards; ++i) loads.emplace(0, i);
  std::vector<size_t> runs;
  for (const Unit& unit : units_of(study, on_device, shards)) {
    const auto [load, taker] = *loads.begin();
    loads.erase(loads.begin());
    loads.emplace(load + unit.cost, taker);
    if (taker == shard) runs.insert(runs.end(), unit.runs.begin(), unit.runs.end());
  }
  std::sort(runs.begin(), runs.end());
  return runs;
}

}  // namespace focus
