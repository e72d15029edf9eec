// Key lists of the positional patterns (those worked out by hand are in stage_04_fixed_masks.cpp),
// and the settings that are refused.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "attention/pattern.h"
#include "error.h"
#include "reference.h"

using namespace focus;
using namespace focus::test;

namespace {

std::vector<std::vector<int>> lists(const AttentionSettings& a, int T) {
  const int entries = count_nnz(a, T);
  std::vector<int> begin(size_t(T) + 2, -7), keys(size_t(entries) + 1, -7);
  fill_key_lists(a, T, begin.data(), keys.data());
  CHECK(begin[0] == 0);
  CHECK(begin[size_t(T)] == entries);
  CHECK(begin[size_t(T) + 1] == -7);  // nothing beyond the ends
  CHECK(keys[size_t(entries)] == -7);
  std::vector<std::vector<int>> result;
  for (int i = 0; i < T; ++i)
    result.emplace_back(keys.begin() + begin[size_t(i)], keys.begin() + begin[size_t(i) + 1]);
  return result;
}

using Lists = std::vector<std::vector<int>>;

std::string refusal(const AttentionSettings& a, int length) {
  try {
    check_settings(a, length);
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("all lists agree with the definition, pair by pair") {
  int wrong = 0;
  for (Pattern pattern : {Pattern::banded, Pattern::block})
    for (int T = 1; T <= 23; ++T)
      for (int g = 0; g < T && g <= 3; ++g)
        for (int k = 1; k <= T - g; ++k) {
          const AttentionSettings a{pattern, k, g};
          const Lists got = lists(a, T);
          for (int i = 0; i < T; ++i) {
            std::vector<int> wanted;
            for (int j = 0; j < T; ++j)
              if (reference_sees(a, T, i, j)) wanted.push_back(j);
            wrong += got[size_t(i)] != wanted;
            if (pattern == Pattern::banded && i < T - g) wrong += int(wanted.size()) != k + g;
          }
        }
  CHECK(wrong == 0);
}

TEST_CASE("patterns that choose keep k entries a query, full all") {
  CHECK(count_nnz({Pattern::full, 0, 0}, 7) == 49);
  for (Pattern pattern : {Pattern::topk, Pattern::bottomk, Pattern::random}) {
    CHECK(count_nnz({pattern, 3, 0}, 7) == 21);
    std::vector<int> begin(8);
    fill_key_lists({pattern, 3, 0}, 7, begin.data(), nullptr);
    CHECK(begin == std::vector<int>{0, 3, 6, 9, 12, 15, 18, 21});
  }
}

TEST_CASE("causal lists: a query and those before it, the k nearest ones where banded") {
  const AttentionSettings banded{.pattern = Pattern::banded, .k = 3, .causal = true};
  CHECK(lists(banded, 5) == Lists{{0}, {0, 1}, {0, 1, 2}, {1, 2, 3}, {2, 3, 4}});
  for (Pattern pattern : {Pattern::full, Pattern::topk, Pattern::banded})
    for (int T = 1; T <= 9; ++T)
      for (int k = 1; k <= T; ++k) {
        const AttentionSettings a{.pattern = pattern, .k = k, .causal = true};
        std::vector<int> begin(size_t(T) + 1), keys(size_t(count_nnz(a, T)));
        fill_key_lists(a, T, begin.data(), keys.data());
        for (int i = 0; i < T; ++i)
          CHECK(begin[size_t(i) + 1] - begin[size_t(i)] ==
                std::min(pattern == Pattern::full ? T : k, i + 1));
        CHECK(begin[size_t(T)] == count_nnz(a, T));
      }
  for (Pattern pattern : {Pattern::block, Pattern::bottomk, Pattern::random})
    CHECK(refusal({.pattern = pattern, .k = 3, .causal = true}, 7) ==
          str("causal attention is full, topk or banded, without global tokens; here: ",
              name_of(pattern)));
  CHECK(refusal({.pattern = Pattern::banded, .k = 3, .global_tokens = 1, .causal = true}, 7) ==
        "causal attention is full, topk or banded, without global tokens; here: banded with global "
        "tokens");
}

TEST_CASE("settings that make no sense are refused by name") {
  CHECK(refusal({Pattern::full, 0, 0}, 1) == "accepted");
  CHECK(refusal({Pattern::full, 99, 0}, 1) == "accepted");  // full has no k
  CHECK(refusal({Pattern::topk, 7, 0}, 7) == "accepted");
  CHECK(refusal({Pattern::banded, 4, 3}, 7) == "accepted");
  CHECK(refusal({Pattern::topk, 8, 0}, 7) ==
        "k = 8 for topk attention must be between 1 and 7, the number of tokens");
  for (Pattern pattern :
       {Pattern::banded, Pattern::block, Pattern::topk, Pattern::bottomk, Pattern::random})
    for (int k : {0, -1, 8, 1 << 30})
      CHECK(refusal({pattern, k, 0}, 7).find("k = " + std::to_string(k) + " for") == 0);
  CHECK(refusal({Pattern::block, 5, 3}, 7).find("k = 5") == 0);  // 4 ordinary tokens
  CHECK(refusal({Pattern::topk, 2, 1}, 7) ==
        "global tokens go with banded and block attention, not with topk");
  CHECK(refusal({Pattern::full, 0, 1}, 7) ==
        "global tokens go with banded and block attention, not with full");
  CHECK(refusal({Pattern::block, 1, 7}, 7).find("leaves no token") != std::string::npos);
  CHECK(refusal({Pattern::block, 1, -1}, 7).find("must not be negative") != std::string::npos);
  CHECK(refusal({Pattern::full, 0, 0, 0}, 7).find("heads 0") == 0);
  CHECK(refusal({Pattern::full, 0, 0, 1, 1.0}, 7) == "dropout 1 is not in [0, 1)");
  CHECK(refusal({Pattern::full, 0, 0, 1, -0.1}, 7) == "dropout -0.1 is not in [0, 1)");
  CHECK(refusal({Pattern::full, 0, 0, 1, NAN}, 7) == "dropout nan is not in [0, 1)");
  CHECK(refusal({Pattern::full, 0, 0}, 0).find("length 0") == 0);
}

TEST_CASE("pattern names") {
  for (Pattern p : {Pattern::full, Pattern::banded, Pattern::block, Pattern::topk, Pattern::bottomk,
                    Pattern::random})
    CHECK(pattern_of(name_of(p)) == p);
  CHECK_THROWS_AS(pattern_of("top-k"), InputError);
  CHECK_THROWS_AS(pattern_of(""), InputError);
}
