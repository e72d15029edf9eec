// The statistics of Table 6 and its two inequalities, against an independent program in double
// (tests/golden/make_theory.py).
#include <doctest/doctest.h>

#include <cmath>

#include "analysis/conditions.h"
#include "analysis/spectral_norm.h"
#include "close.h"
#include "theory_golden.h"

using namespace focus;
using namespace focus::test;

namespace {

const std::atomic<bool> no_stop{false};

Stability measured(const std::string& name, int threads = 1) {
  GoldenModel<double> golden(name);
  Workers workers(threads);
  return measure_stability(golden.model, golden.data, golden.data.rows, workers, no_stop).value();
}

// "" or the first percentile that is off by more than 1e-6 of it + 1e-6. (Positions: the reference
// has them in double as we do, so what is left is the float32 in which values are kept.)
std::string off(const std::string& what, const nlohmann::json& wanted,
                const std::optional<Percentiles>& got) {
  if (wanted.is_null() != !got) return what + (got ? " is there" : " is missing");
  if (!got) return "";
  for (int point : percentile_points) {
    const double w = wanted.at(std::to_string(point)), g = percentile(*got, point);
    if (!(std::abs(g - w) <= 1e-6 * std::abs(w) + 1e-6))
      return str(what, ", percentile ", point, ": ", g, ", wanted ", w);
  }
  return "";
}

std::string difference(const nlohmann::json& wanted, const Statistics& got) {
  const auto maybe = [&](const char* name) {
    return wanted.contains(name) ? wanted[name] : nlohmann::json();
  };
  std::string text = off("delta_s", maybe("delta_s"), got.dispersion) +
                     off("sensitivity", maybe("sensitivity"), got.sensitivity) +
                     off("delta_h", maybe("delta_h"), got.kept_dispersion) +
                     off("Delta_h", maybe("Delta_h"), got.separation) +
                     off("beta", maybe("beta"), got.key_count);
  const auto number = [&](const char* name, double g) {
    const double w = wanted.at(name);
    if (!(std::abs(g - w) <= 1e-7 * w)) text += str(" ", name, ": ", g, ", wanted ", w);
  };
  number("Upsilon", got.value_norm), number("Gamma", got.score_norm);
  number("B", got.mlp_norm), number("Xi", got.largest_token);
  return text;
}

}  // namespace

TEST_CASE("stability: every pattern's statistics are those of an independent program") {
  for (const auto& [name, wanted] : theory().at("stability").items()) {
    const Stability got = measured(name);
    REQUIRE(got.layers.size() == wanted.at("layers").size());
    for (size_t layer = 0; layer < got.layers.size(); ++layer)
      CHECK_MESSAGE(difference(wanted["layers"][layer], got.layers[layer]) == "", name, ", layer ",
                    layer);
    CHECK_MESSAGE(difference(wanted["all"], got.all) == "", name);
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
  for (int i = 0; i < 20 * s.length; ++i) data.tokens.push_back(uint8_t(rng.below(9)));
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
  for (const auto& [rows, columns] :
       {std::pair{1, 1}, {1, 7}, {7, 1}, {40, 9}, {9, 40}, {70, 70}}) {
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
        CHECK_MESSAGE(got == doctest::Approx(wanted[i].at(name).get<double>()).epsilon(1e-5), name);
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
