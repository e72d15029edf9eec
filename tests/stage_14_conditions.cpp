// Stage 14: the statistics of Table 6, its two conditions and the frontiers of Figures 21 and 22.
// Golden numbers are those of an independent program in double (tests/golden/make_theory.py). The
// bounds that the conditions come from: stage_14_chain.cpp.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "analysis/conditions.h"
#include "analysis/spectral_norm.h"
#include "close.h"
#include "stability_golden.h"

using namespace focus;
using namespace focus::test;

namespace {

const std::atomic<bool> no_stop{false};

}  // namespace

// --- Figures 21 and 22 --------------------------------------------------------------------------

TEST_CASE("frontiers: the closed forms are the authors' grid, empty curves too") {
  for (const auto& row : theory().at("frontiers")) {
    const double s = row.at("delta_s"), c1 = row.at("c1");
    const auto agrees = [&](const char* name, double got) {
      const auto& wanted = row.at(name);
      // The grid goes from 1e-4 to 0.9999 and has only its own points.
      if (wanted.is_null())
        CHECK_MESSAGE(got >= 0.9999, name, ", δ_s = ", s, ", c₁ = ", c1, ": ", got);
      else
        CHECK_MESSAGE(std::abs(std::max(got, 1e-4) - wanted.get<double>()) <= 1.0001e-4, name,
                      ", δ_s = ", s, ", c₁ = ", c1, ": ", got, ", wanted ", wanted.get<double>());
    };
    agrees("weights", weights_frontier(s, c1));
    for (int b : {1, 4, 32}) agrees(str("inputs_", b).c_str(), inputs_frontier(s, c1, b));
  }
  // Below δ_s = 1.273 nothing is feasible in Figure 21.
  for (double c1 : {0.0, 0.2, 0.5}) CHECK(weights_frontier(1.27, c1) > 1);
  CHECK(weights_frontier(1.28, 0) < 1);
  // On the frontier the condition is an equality.
  CHECK(weights_left_side(3, 0.6, 3 * weights_frontier(3, 0.2)) == doctest::Approx(1));
  CHECK(inputs_left_side(8, 2, 8 * inputs_frontier(8, 0.25, 4), 4) == doctest::Approx(1));
}

TEST_CASE("conditions: with full's side capped none of Table 6's sixteen holds, without it eight") {
  struct Task {
    int T;
    std::array<double, 4> delta_s, delta_h, separation;
  };
  const Task tasks[] = {
      {600, {8.61, 18.5, 29.4, 87.8}, {3.51, 6.74, 9.67, 28.2}, {0.016, 0.005, 0.002, 1e-9}},
      {40, {8.30, 10.1, 11.2, 19.4}, {2.31, 3.13, 3.78, 9.16}, {0.062, 0.022, 0.011, 1e-6}},
      {40, {2.03, 4.73, 9.44, 14.6}, {1.03, 2.84, 5.50, 8.25}, {0.009, 0.003, 0.002, 3e-8}},
      {40, {4.63, 9.25, 17.1, 23.9}, {2.36, 4.25, 4.88, 10.5}, {0.018, 0.006, 0.003, 1e-7}}};
  int hold = 0, hold_capped = 0;
  for (const Task& t : tasks)
    for (size_t p = 0; p < 4; ++p) {
      hold += weights_left_side(t.delta_s[p], t.delta_h[p], t.separation[p]) < 1;
      hold_capped += weights_hold_capped(t.delta_s[p], t.delta_h[p], t.separation[p], t.T);
    }
  CHECK(hold == 8);
  CHECK(hold_capped == 0);
  CHECK(weights_hold_capped(8, 0.1, 1, 40));  // 2 e^0.1 · 2 = 4.4 < 20
  // By hand: 2 e^0 (1 + 1/1) = 4 against L/2, and against e.
  CHECK(!weights_hold_capped(10, 0, 1, 8));
  CHECK(weights_hold_capped(10, 0, 1, 9));
  CHECK(!weights_hold_capped(1, 0, 1, 9));
}

// --- Table 6 ------------------------------------------------------------------------------------

TEST_CASE("stability: every pattern's statistics are those of an independent program") {
  for (const auto& item : theory().at("stability").items()) {
    const std::string name = item.key();
    const nlohmann::json& wanted = item.value();
    const Stability got = measured(name);
    REQUIRE(got.layers.size() == wanted.at("layers").size());
    for (size_t layer = 0; layer < got.layers.size(); ++layer)
      CHECK_MESSAGE(difference(wanted["layers"][layer], got.layers[layer], in_double) == "", name,
                    ", layer ", layer);
    CHECK_MESSAGE(difference(wanted["all"], got.all, in_double) == "", name);
  }
}

TEST_CASE("stability: the same numbers on several threads, and fewer rows are a prefix") {
  const Stability one = measured("topk_gelu_2heads"), three = measured("topk_gelu_2heads", 3);
  CHECK(one.all.dispersion == three.all.dispersion);
  CHECK(one.all.key_count == three.all.key_count);
  GoldenModel<double> golden("topk_gelu_2heads"), shorter("topk_gelu_2heads");
  shorter.data.rows = 1;
  Workers workers;
  CHECK(measure_stability(golden.model, golden.data, 1, workers, no_stop)->all.separation ==
        measure_stability(shorter.model, shorter.data, 1, workers, no_stop)->all.separation);
  CHECK(one.all.separation !=
        measure_stability(golden.model, golden.data, 1, workers, no_stop)->all.separation);
}

TEST_CASE("stability: many batches, long rows and a stop") {
  ModelSettings s;  // 300 tokens: 13 rows a batch, seven blocks of 48 queries
  s.attention = {Pattern::topk, 4, 0, 1, 0};
  s.vocabulary = 9, s.classes = 2, s.length = 300, s.blocks = 1, s.d_model = 6, s.d_mlp = 6;
  Model<double> model(s);
  model.initialise(5);
  Rng rng(3, Stream::analysis, 2);
  PaddedData data{20, s.length, s.vocabulary, {}, std::vector<int>(20)};
  for (int i = 0; i < 20 * s.length; ++i) data.tokens.push_back(TokenId(rng.below(9)));
  Workers workers(2);
  double share = 0;
  const auto all =
      measure_stability(model, data, 20, workers, no_stop, [&](double s) { share = s; });
  CHECK(share == 1);
  // Twice the same rows: every percentile that hits a value stays, the sums of keys too.
  const std::vector<int> tokens(data.tokens.begin(), data.tokens.begin() + s.length);
  const std::vector<HeadScores> scores = attention_scores(model, tokens.data(), 1, workers);
  double largest = 0;
  for (const QueryStatistics& q : query_statistics(scores[0], s.attention))
    largest = std::max(largest, q.dispersion);
  const auto first = measure_stability(model, data, 1, workers, no_stop);
  CHECK(percentile(first->all.dispersion, 100) == doctest::Approx(largest).epsilon(1e-6));
  CHECK(percentile(all->all.dispersion, 100) >= percentile(first->all.dispersion, 100));
  CHECK(!measure_stability(model, data, 20, workers, std::atomic<bool>{true}));
}

TEST_CASE("stability: separation of rows by hand") {
  const std::vector<double> scores{1, 5, 2, 5};
  const auto of = [&](std::vector<int> kept) { return row_statistics(scores, kept); };
  CHECK(of({1, 2, 3}).dispersion == 4);
  CHECK(of({1, 2, 3}).kept_dispersion == 3);
  CHECK(of({1, 2, 3}).separation == 1);
  CHECK(of({1}).separation == 0);  // the tie of 5 and 5
  CHECK(of({1}).kept_dispersion == 0);
  CHECK(of({0, 2}).separation == -4);  // a mask may drop the largest
  CHECK(std::isnan(of({0, 1, 2, 3}).separation));
}

TEST_CASE("spectral norm: known singular values, also close ones, any shape") {
  Rng rng(8, Stream::analysis, 4);
  for (const auto& shape : {std::pair{1, 1}, {1, 7}, {7, 1}, {40, 9}, {9, 40}, {70, 70}}) {
    const int rows = shape.first, columns = shape.second;
    // Q diag(s) Rᵀ with Q and R products of reflections.
    const int rank = std::min(rows, columns);
    std::vector<double> a(size_t(rows) * size_t(columns), 0.0);
    for (int i = 0; i < rank; ++i)
      a[size_t(i) * size_t(columns) + size_t(i)] = i == 0 ? 3 : 3 * (1 - 1e-3 * i / rank);
    for (int side = 0; side < 2; ++side)
      for (int reflection = 0; reflection < 3; ++reflection) {
        const int n = side == 0 ? rows : columns;
        std::vector<double> v(static_cast<size_t>(n));
        double square = 0;
        for (double& x : v) x = rng.normal(), square += x * x;
        for (int other = 0; other < (side == 0 ? columns : rows); ++other) {
          const auto at = [&](int i) -> double& {
            return side == 0 ? a[size_t(i) * size_t(columns) + size_t(other)]
                             : a[size_t(other) * size_t(columns) + size_t(i)];
          };
          double product = 0;
          for (int i = 0; i < n; ++i) product += v[size_t(i)] * at(i);
          for (int i = 0; i < n; ++i) at(i) -= 2 * product / square * v[size_t(i)];
        }
      }
    CHECK(spectral_norm(a, rows, columns) == doctest::Approx(3).epsilon(1e-12));
    for (double& x : a) x *= 1e-200;
    CHECK(spectral_norm(a, rows, columns) == doctest::Approx(3e-200).epsilon(1e-12));
  }
  CHECK(spectral_norm(std::vector<double>(6, 0.0), 2, 3) == 0);
}

TEST_CASE("conditions: golden pairs, the paper's Table 6, and what has none") {
  for (const auto& [full, sparse] : {std::pair{"full", "topk"}, {"full_scale4", "topk_scale05"}}) {
    const GoldenModel<double> golden(sparse);
    const auto rows =
        table_6(measured(full).all, measured(sparse).all, golden.model.settings().attention.k);
    const auto& wanted = theory().at("inequalities").at(str(full, " ", sparse));
    REQUIRE(rows.size() == 4);
    for (size_t i = 0; i < 4; ++i) {
      const auto close = [&](const char* name, double got) {
        CHECK_MESSAGE(got == doctest::Approx(wanted[i].at(name).get<double>()).epsilon(1e-5),
                      std::string(name));
      };
      CHECK(rows[i].percentile == wanted[i].at("percentile"));
      close("delta_s", rows[i].delta_s), close("delta_h", rows[i].delta_h);
      close("Delta_h", rows[i].separation), close("beta", rows[i].beta);
      close("weights_lhs", rows[i].weights), close("inputs_lhs", rows[i].inputs);
    }
  }
  // List operations at the 75th percentile, parity at the 100th.
  CHECK(weights_left_side(8.61, 3.51, 0.016) == doctest::Approx(0.970).epsilon(1e-3));
  CHECK(inputs_left_side(8.61, 3.51, 0.016, 1.0 / 5) == doctest::Approx(0.898).epsilon(1e-3));
  CHECK(weights_left_side(19.4, 9.16, 1e-6) == doctest::Approx(1.220).epsilon(1e-3));
  CHECK(inputs_left_side(19.4, 9.16, 1e-6, 33.0 / 5) == doctest::Approx(1.286).epsilon(1e-3));
  // e^900 is no double, its logarithm is.
  CHECK(weights_left_side(1000, 900, 1) == doctest::Approx((900 + std::log(4.0)) / 1000));
  CHECK_THROWS_AS(table_6(measured("full").all, measured("full").all, 5), InputError);
  CHECK_THROWS_AS(table_6(measured("full").all, measured("topk_k_is_length").all, 7), InputError);
}

TEST_CASE("conditions: a statistic below 1e-9 counts as that") {
  Statistics full, sparse;
  full.dispersion.fill(2);
  sparse.kept_dispersion = Percentiles{}, sparse.key_count = Percentiles{};
  sparse.separation = Percentiles{};
  sparse.separation->fill(-3);
  for (const Condition& c : table_6(full, sparse, 5)) {
    CHECK(c.delta_h == 1e-9);
    CHECK(c.separation == 1e-9);
    CHECK(c.beta == 1e-9);
    CHECK(c.weights == doctest::Approx(std::log(2e9) / 2).epsilon(1e-8));
  }
}
