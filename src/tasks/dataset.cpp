#include "tasks/dataset.h"

#include <algorithm>
#include <climits>
#include <set>
#include <string>

#include "error.h"

namespace focus {

// 0 or 1, from a hash that is the same on every machine (std::hash need not be): FNV-1a (Fowler,
// Noll, Vo), whose bits are then mixed once more, since a few tokens alone hardly reach the top
// bit.
static uint32_t half_of(const std::vector<uint8_t>& tokens) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (uint8_t token : tokens) hash = (hash ^ token) * 0x100000001b3u;
  hash ^= hash >> 29;
  hash *= 0xbf58476d1ce4e5b9u;
  return uint32_t(hash >> 63);
}

std::vector<Example> generate_examples(const Task& task, int count, int length, uint64_t seed,
                                       uint32_t split) {
  // Limits that keep the data in memory, and its file within what the reader takes.
  constexpr int most_examples = 10'000'000, most_redraws = 20'000;
  constexpr int64_t most_tokens = int64_t{1} << 28;
  if (count < 1 || count > most_examples) {
    fail_input("the number of examples must lie between 1 and ", most_examples, ", not ", count);
  }
  if (length < task.shortest_length || length > task.longest_length) {
    fail_input("the length of ", task.name, " must lie between ", task.shortest_length, " and ",
               task.longest_length, ", not ", length);
  }
  if (int64_t{count} * length > most_tokens) {
    fail_input(count, " examples of length ", length, " are more than ", most_tokens,
               " tokens: ask for fewer or shorter ones");
  }
  if (task.distinct && split > held_out_split) {
    fail_input(task.name, " has the splits 0 and 1 only, not ", split);
  }

  std::vector<Example> examples;
  std::set<std::string> seen;
  for (int i = 0; i < count; ++i) {
    Rng rng(seed, Stream::data, split, uint32_t(i));
    Example example = task.generate(rng, length);
    if (task.distinct) {
      const auto is_new = [&] {
        return seen.emplace(example.tokens.begin(), example.tokens.end()).second;
      };
      const auto too_few = [&] {
        fail_input("only ", i, " distinct examples of ", task.name, " of length ", length,
                   " were found: ask for fewer, or for a greater length");
      };
      //@ gap 06 distinct-split
      int redraws = 0;
      while (half_of(example.tokens) != split || !is_new()) {
        if (++redraws > most_redraws) too_few();
        example = task.generate(rng, length);
      }
      //@ end
    }
    examples.push_back(std::move(example));
  }
  return examples;
}

uint64_t data_seed(const Task& task, uint64_t run_seed) {
  return task.distinct ? 1 : run_seed;
}

int longest_example(std::span<const Example> examples) {
  size_t longest = 0;
  for (const Example& example : examples) longest = std::max(longest, example.tokens.size());
  return int(longest);
}

PaddedData pad_examples(std::span<const Example> examples, const Task& task, int k,
                        int global_tokens, int at_least_length) {
  const int pad = int(task.tokens.size());
  if (examples.empty()) fail_input("there are no examples");
  if (global_tokens < 0 || global_tokens > 255 - pad) {
    fail_input(task.name, " leaves room for 0 to ", 255 - pad, " global tokens, not ",
               global_tokens);
  }
  int64_t length = std::max({1, longest_example(examples), at_least_length});
  if (k > 0) length = (length + k - 1) / k * k;
  const int64_t padded_length = length;
  length += global_tokens;
  if (int64_t(examples.size()) > INT_MAX / length) {
    fail_input(examples.size(), " rows of ", length,
               " tokens are too many: use fewer or shorter examples");
  }

  PaddedData data;
  data.rows = int(examples.size());
  data.length = int(length);
  data.vocabulary = pad + 1 + global_tokens;
  data.tokens.reserve(examples.size() * size_t(length));
  for (const Example& example : examples) {
    const size_t row_end = data.tokens.size() + size_t(padded_length);
    data.tokens.insert(data.tokens.end(), example.tokens.begin(), example.tokens.end());
    data.tokens.resize(row_end, TokenId(pad));
    for (int g = 1; g <= global_tokens; ++g) data.tokens.push_back(TokenId(pad + g));
    data.labels.push_back(example.label);
  }
  return data;
}

}  // namespace focus
