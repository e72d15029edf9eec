#include "train/seeds.h"

#include "error.h"

namespace focus {

std::span<const uint64_t> paper_seeds() {
  static constexpr uint64_t seeds[] = {153476998, 235510766, 205084180, 129959864, 149896109,
                                       140439608, 145017219, 162518970, 245293503, 152674004};
  return seeds;
}

std::vector<uint64_t> choose_seeds(int count, const uint64_t* first) {
  if (count < 1 || count > 1000) fail_input("--seeds ", count, " is not between 1 and 1000");
  std::vector<uint64_t> seeds(static_cast<size_t>(count));
  if (!first && seeds.size() > paper_seeds().size())
    fail_input("--seeds ", count, ": the paper has only ", paper_seeds().size(),
               " seeds; give --seed S to use S, S+1, …");
  for (size_t i = 0; i < seeds.size(); ++i) seeds[i] = first ? *first + i : paper_seeds()[i];
  return seeds;
}

}  // namespace focus
