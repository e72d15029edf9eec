// The rule that judges one setting, and its words, on curves made up for each case.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "study/rule.h"

using namespace focus;

namespace {

// A variant whose seeds reach the target at these epochs (0: never) and have `epochs` in all.
StudiedVariant arriving(const std::string& mechanism, const std::vector<int>& at, int epochs) {
  StudiedVariant v;
  v.name = v.mechanism = mechanism;
  for (size_t s = 0; s < at.size(); ++s) {
    v.seeds.push_back(s + 1);
    v.curves.emplace_back();
    for (int e = 1; e <= epochs; ++e)
      v.curves.back().push_back({e, s + 1, 0.5, at[s] && e >= at[s] ? 96.0 : 50.0, 0.5, 50, 1});
  }
  return v;
}

Judgement judged(const std::vector<int>& topk, const std::vector<int>& full, double share = 0.75) {
  return judge_epochs(arriving("topk(5)", topk, 14), arriving("full", full, 26), share);
}

bool has(const Judgement& j, const std::string& words) {
  return j.words.find(words) != std::string::npos;
}

}  // namespace

TEST_CASE("rule: faster with every seed, and the median at most the share") {
  CHECK(judged({5, 6, 7}, {20, 24, 26}).reproduced);
  CHECK(judged({5, 6, 9}, {20, 8, 26}, 0.3).reproduced);
  CHECK_FALSE(judged({5, 6, 9}, {20, 8, 26}, 0.29).reproduced);  // 6 of 20
  CHECK(judged({6, 6, 9}, {8, 8, 26}).reproduced);               // exactly three quarters
  CHECK_FALSE(judged({5, 6, 9}, {20, 24, 9}).reproduced);        // one seed is not faster
  CHECK_FALSE(judged({5, 0, 9}, {20, 24, 26}).reproduced);       // or does not arrive at all
  CHECK_FALSE(judged({5, 0, 9}, {20, 0, 26}).reproduced);        // nor does full with that one
  CHECK(judged({5, 6, 9}, {0, 0, 0}).reproduced);
  CHECK_FALSE(judged({0, 0, 0}, {0, 0, 0}).reproduced);
  CHECK_FALSE(judged({20, 24, 26}, {5, 6, 7}).reproduced);
}

TEST_CASE("rule: a run that ended with NaN never arrived") {
  StudiedVariant full = arriving("full", {20, 24, 26}, 26),
                 topk = arriving("topk(5)", {5, 6, 7}, 14);
  full.curves[1].resize(3);
  CHECK(judge_epochs(topk, full, 0.75).reproduced);
  topk.curves[2].clear();
  CHECK_FALSE(judge_epochs(topk, full, 0.75).reproduced);
}

TEST_CASE("rule: the words") {
  CHECK(judged({5, 6, 7}, {20, 24, 26}).words ==
        "reproduced; medians 6 against 24 epochs, 4.00 times fewer (range: 3.71 to 4.00); "
        "faster in 3 of 3 seeds (sign test p = 0.25)");
  CHECK(has(judged({6, 7, 7}, {0, 26, 20}), "3.71 times fewer (range: 2.86 or more)"));
}

TEST_CASE("rule: who did not arrive is told in words, with no inf and no 'none'") {
  CHECK(
      has(judged({5, 7, 9}, {0, 0, 17}),
          "; topk(5): median 7 epochs, full got there within 26 epochs with 1 of 3 seeds only; "));
  CHECK(has(judged({5, 7, 9}, {0, 0, 0}),
            "; topk(5): median 7 epochs, full did not get there within 26 epochs; "));
  CHECK(has(judged({0, 0, 0}, {5, 7, 9}),
            "; topk(5) did not get there within 14 epochs, full: median 7 epochs; "));
  CHECK(has(judged({0, 0, 0}, {0, 0, 0}),
            "; topk(5) did not get there within 14 epochs, full did not get there within 26 "
            "epochs; faster in 0 of 3 seeds (sign test p = 1.00)"));
  for (int topk : {0, 5})
    for (int full : {0, 9})
      for (const char* word : {"inf", "none", "nan"})
        CHECK_FALSE(has(judged({topk, topk, 5}, {full, 9, full}), word));
}

TEST_CASE("rule: a result for each setting, told in the settings' order") {
  StudyResults results;
  for (const auto& [rest, topk] :
       {std::pair("lr=0.2", std::vector{5, 6, 7}), {"lr=0.1", {5, 6, 9}}})
    for (StudiedVariant v : {arriving("topk(5)", topk, 14), arriving("full", {20, 24, 8}, 26)}) {
      v.rest = rest, v.name = v.mechanism + " " + rest;
      results.variants.push_back(v);
    }
  const Judgements each = judge_each_setting(results, 0.75);
  CHECK(each.reproduced == 1);
  CHECK(each.words.starts_with("lr=0.2: reproduced; medians 6 against 20 epochs"));
  CHECK(each.words.find(". lr=0.1: NOT reproduced; medians 6 against 20") != std::string::npos);
}
