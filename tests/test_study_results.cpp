// Statistics over pairs of seeds, results.csv, and what a summary says, with numbers worked out by
// hand.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <optional>

#include "rng.h"
#include "study/summary.h"

using namespace focus;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

EpochMetrics row(int epoch, uint64_t seed, double train_accuracy, double val_accuracy) {
  return {epoch, seed, 1.0 / (epoch + double(seed)), train_accuracy, 0.5, val_accuracy, 7};
}

const Study& two_mechanisms() {
  static const Study study = parse_study(
      "attention,k,heads,seed,target,epochs\n"
      "full,,1|2,1 2 3,90%,3\n"
      "topk,5,1|2,1 2 3,90%,2\n",
      "t.csv");
  return study;
}

// Full with one head arrives at epochs 2, 3, never; topk(5) at 1, 1, 2. The others never do.
std::vector<StudiedVariant> some_results() {
  std::vector<StudiedVariant> variants = empty_variants(two_mechanisms());
  const double full[3][3] = {{50, 90, 95}, {50, 60, 90}, {50, 60, 89.9}};
  const double topk[3][2] = {{90, 80}, {91, 99}, {50, 100}};
  for (size_t s = 0; s < 3; ++s) {
    for (int e = 1; e <= 3; ++e) {
      variants[0].curves[s].push_back(row(e, s + 1, full[s][e - 1], 60 + double(s)));
      variants[1].curves[s].push_back(row(e, s + 1, 50, 50));
    }
    for (int e = 1; e <= 2; ++e) {
      variants[2].curves[s].push_back(row(e, s + 1, topk[s][e - 1], e == 1 ? 99 : 70));
      variants[3].curves[s].push_back(row(e, s + 1, 51, 50));
    }
  }
  return variants;
}

}  // namespace

TEST_CASE("statistics: the sign test") {
  const SignTest all = sign_test({1, 2, 3}, {4, 5, 6});
  CHECK(all.less == 3);
  CHECK(all.p == doctest::Approx(0.25));  // 2 / 2³
  const SignTest some = sign_test({1, 2, 3, 9, 5, inf}, {4, 5, 6, 6, 5, inf});
  CHECK(some.less == 3);
  CHECK(some.greater == 1);
  CHECK(some.ties == 2);
  CHECK(some.p == doctest::Approx(0.625));  // 2 (1 + 4) / 2⁴
  CHECK(sign_test({}, {}).p == 1);
  CHECK(sign_test({1, 2}, {2, 1}).p == 1);
  std::vector<double> few(10, 1), many(10, 2);
  CHECK(sign_test(few, many).p == doctest::Approx(2 / 1024.0));
}

TEST_CASE("statistics: speedup and its interval") {
  const Estimate e = speedup({5, 6, 7}, {50, 60, 70});
  CHECK(e.value == 10);
  CHECK(e.low <= 10);
  CHECK(e.high >= 10);
  CHECK(e.low >= 50.0 / 7);
  CHECK(e.high <= 14);
  // With the pairs kept together every draw has the same ratio.
  const Estimate same = speedup({1, 2, 4}, {3, 6, 12});
  CHECK(same.low == 3);
  CHECK(same.high == 3);
  const Estimate never = speedup({5, 6}, {inf, inf});
  CHECK(never.value == inf);
  CHECK(never.low == inf);
  const Estimate slower = speedup({inf, inf}, {5, 6});
  CHECK(slower.value == 0);
  CHECK(slower.high == 0);
  const Estimate unknown = speedup({inf, inf}, {inf, inf});
  CHECK(std::isnan(unknown.value));
  CHECK(unknown.low == 0);
  CHECK(unknown.high == inf);
  CHECK(std::isnan(speedup({}, {}).low));
}

TEST_CASE("statistics: the bootstrap interval covers what it should") {
  // The median of 9 draws from a normal distribution: about 95 % of the intervals hold its mean.
  int holds = 0;
  constexpr int times = 200;
  for (uint32_t t = 0; t < times; ++t) {
    Rng rng(5, Stream::analysis, t);
    std::vector<double> values, zeros(9, 0.0);
    for (int i = 0; i < 9; ++i) values.push_back(3 + rng.normal());
    const Estimate e = median_gain(values, zeros);
    CHECK(e.low <= e.value);
    CHECK(e.value <= e.high);
    holds += e.low <= 3 && 3 <= e.high;
  }
  CHECK(holds >= times * 85 / 100);
  CHECK(holds < times);
  CHECK(median_gain({3, 5}, {1, 1}).value == 3);
}

TEST_CASE("study results: a file holds all that figures and tables need") {
  const std::vector<StudiedVariant> variants = some_results();
  const Notes notes = {{"date", "2026-01-02"}, {"hardware", "a: b"}};
  const std::string text = results_text(two_mechanisms(), notes, variants);
  const StudyResults read = parse_results(text, "results.csv");
  CHECK(read.notes == notes);
  REQUIRE(read.variants.size() == 4);
  CHECK(read.variant("topk(5) heads=2").rest == "heads=2");
  CHECK(read.variant("topk(5) heads=2").mechanism == "topk(5)");
  CHECK(read.variants[0].target.value == 90);
  CHECK(read.variants[2].curves[1].size() == 2);
  CHECK(read.variants[2].curves[1][1].train_accuracy == 99);
  CHECK(read.variants[0].seeds == std::vector<uint64_t>{1, 2, 3});
  CHECK(results_text(two_mechanisms(), read.notes, read.variants) == text);
  CHECK(summary_text(summarise(read.variants)) == summary_text(summarise(variants)));
  CHECK(read.rests() == std::vector<std::string>{"heads=1", "heads=2"});
  const std::vector<VariantResult> panel = read.with_rest("heads=2");
  REQUIRE(panel.size() == 2);
  CHECK(panel[1].name == "topk(5)");
  CHECK(panel[1].curves[2][0].train_accuracy == 51);
}

TEST_CASE("study results: an older file without notes on variants") {
  const StudyResults read = parse_results(
      str("# from: lesson-05\n", results_columns, "\nfull,1,7,0.72,50.72,0.70,53.4\n"), "r.csv");
  CHECK(read.variants.at(0).target.value == 95);
  CHECK(read.variants[0].curves[0][0].val_accuracy == 53.4);
}

TEST_CASE("study results: bad files are refused with the line") {
  const auto refuses = [](const std::string& text, const std::string& message) {
    CAPTURE(text);
    CHECK_THROWS_WITH_AS(parse_results(text, "r.csv"), doctest::Contains(message.c_str()),
                         InputError);
  };
  const std::string head = str(results_columns, "\n");
  refuses("", "no header");
  refuses("# a: b\nepoch,seed\n", "line 2: the header is not");
  refuses(head + "full\n", "line 2: no variant's name");
  refuses(head + "full,1,7,0.7,50,0.7\n", "line 2: 6 columns");
  refuses(head + "full,1,7,0.7,50,0.7,500\n", "line 2: val_accuracy '500'");
  refuses(head + "full,2,7,0.7,50,0.7,50\n", "line 2: epoch 2 of full, seed 7, where epoch 1");
  refuses("# variant full: target 0%; seeds 1; x\n" + head, "line 1: '0%' is no target");
  refuses("# variant full: target 9%; seeds x; y\n" + head, "line 1: 'x' is not a whole");
  refuses("# variant full: x\n" + head, "line 1: the variant's note is not");
}

TEST_CASE("study summary: epochs, accuracies and the comparison with full attention") {
  const std::vector<StudiedVariant> variants = some_results();
  const std::vector<VariantSummary> s = summarise(variants);
  REQUIRE(s.size() == 4);
  CHECK(s[0].epochs == std::vector<std::optional<int>>{2, 3, std::nullopt});
  CHECK(s[0].median_epochs == 3);
  CHECK(s[0].high_epochs == inf);
  CHECK(!s[0].against_full);
  CHECK(s[2].epochs == std::vector<std::optional<int>>{1, 1, 2});
  CHECK(s[2].final_val_accuracy == 70);
  CHECK(s[2].best_val_accuracy == 99);
  CHECK(s[2].final_train_accuracy == 99);
  REQUIRE(s[2].against_full);
  CHECK(s[2].against_full->baseline == "full heads=1");
  CHECK(s[2].against_full->speedup.value == 3);  // 3 / 1
  CHECK(s[2].against_full->epochs.less == 3);
  CHECK(s[2].against_full->val_gain.value == 9);  // of 10, 9, 8
  CHECK(s[2].against_full->val_accuracy.greater == 3);
  REQUIRE(s[3].against_full);
  CHECK(s[3].against_full->baseline == "full heads=2");
  CHECK(s[3].against_full->epochs.ties == 3);
  CHECK(summary_text(s).find("\ntopk(5) heads=1,90%,3,1 1 2,1,1,1.5,") != std::string::npos);

  // A seed that only one of them has is no pair.
  StudiedVariant fewer = variants[2];
  fewer.seeds = {9, 3, 8};
  CHECK(compare(outcomes_of(fewer), outcomes_of(variants[0]))->epochs.less == 1);
  fewer.seeds = {9, 10, 8};
  CHECK(!compare(outcomes_of(fewer), outcomes_of(variants[0])));

  // A target that is a loss is reached from above.
  StudiedVariant by_loss = variants[0];
  by_loss.target = {false, 0.34};
  CHECK(epochs_to_target(by_loss) == std::vector<std::optional<int>>{2, 1, 1});
}
