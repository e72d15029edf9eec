// Random attention: which keys it draws, when it draws anew, and what doubles count for.
#include "attention_run.h"

using namespace focus;
using namespace focus::test;

namespace {

AttentionSettings settings(int k, int heads = 2, double dropout = 0) {
  return {Pattern::random, k, 0, heads, dropout};
}

}  // namespace

TEST_CASE("with replacement: as many distinct keys as chance leaves, uniform over all keys") {
  const Sizes s{8, 20, 2, 1};
  const int k = 10;
  const Mask mask = drawn_mask(s, settings(k), {.on = true, .seed = 1, .step = 1});
  double distinct = 0;
  std::vector<double> per_key(20);
  const int rows = s.units() * s.T;
  for (int row = 0; row < rows; ++row)
    for (int j = 0; j < s.T; ++j) {
      distinct += mask[size_t(row * s.T + j)];
      per_key[size_t(j)] += mask[size_t(row * s.T + j)];
    }
  // A key stays out of ten draws with probability 0.95¹⁰, so a row keeps 20 · 0.401 = 8.03 keys.
  const double share = 1 - std::pow(0.95, 10), deviation = std::sqrt(share * (1 - share) * rows);
  CHECK(std::abs(distinct - 20 * share * rows) < 5 * deviation * std::sqrt(20.0));
  for (double count : per_key) CHECK(std::abs(count - share * rows) < 5 * deviation);
  CHECK(distinct < k * rows);  // doubles happen and collapse
}

TEST_CASE("doubles count once: the softmax is over distinct keys") {
  const Sizes s{2, 3, 2, 2};  // three keys, three draws: doubles in most rows
  const Numbers q = numbers_for(s, 1), k = numbers_for(s, 2);
  const Noise noise{.on = true, .seed = 1, .step = 2};
  const Mask mask = drawn_mask(s, settings(3), noise);
  const std::vector<double> p = attention_weights<double>(s, settings(3), q, k, noise);
  const Numbers wanted = reference_attention(s, q, k, q, mask, {}, 1, {}).p;
  CHECK(difference("p", {s.B, s.H, s.T, s.T}, p.data(), wanted, 8) == "");
  CHECK(std::count(mask.begin(), mask.end(), 0) > 5);
}

TEST_CASE("k = 1 keeps one key; every row, head and sequence draws its own") {
  const Sizes s{3, 17, 3, 1};
  const Mask mask = drawn_mask(s, settings(1, 3), {.on = true, .seed = 3, .step = 2});
  std::vector<std::vector<char>> units;
  for (int u = 0; u < s.units(); ++u) {
    for (int i = 0; i < s.T; ++i) {
      const auto row = mask.begin() + ptrdiff_t(s.pair(u, i, 0));
      CHECK(std::count(row, row + s.T, 1) == 1);
    }
    units.emplace_back(mask.begin() + ptrdiff_t(s.pair(u, 0, 0)),
                       mask.begin() + ptrdiff_t(s.pair(u, 0, 0)) + s.T * s.T);
  }
  for (size_t a = 0; a < units.size(); ++a)
    for (size_t b = 0; b < a; ++b) CHECK(units[a] != units[b]);
}

TEST_CASE("training draws anew at each step, by seed and site; evaluation always the same") {
  const Sizes s{2, 17, 1, 1};
  const AttentionSettings a = settings(5, 1);
  const Noise base{.on = true, .seed = 3, .step = 2};
  const Mask first = drawn_mask(s, a, base);
  CHECK((drawn_mask(s, a, base) == first));
  CHECK((drawn_mask(s, a, {.on = true, .seed = 3, .step = 3}) != first));
  CHECK((drawn_mask(s, a, {.on = true, .seed = 4, .step = 2}) != first));
  CHECK((drawn_mask(s, a, {.on = true, .seed = 3, .step = 2, .next_site = 1}) != first));

  const Mask evaluation = drawn_mask(s, a, {});
  CHECK((drawn_mask(s, a, {.on = false, .seed = 0, .step = 9}) == evaluation));
  CHECK((evaluation != first));
  // Two layers of a model must not share their draw, in evaluation too.
  CHECK((drawn_mask(s, a, {.on = false, .seed = 0, .step = 0, .next_site = 1}) != evaluation));
}

TEST_CASE("dropout on random attention: every weight is dropped or scaled") {
  const Sizes s{2, 17, 2, 2};
  const double p = 0.3;
  const Noise noise{.on = true, .seed = 5, .step = 2};
  const Numbers q = numbers_for(s, 1), k = numbers_for(s, 2);
  const std::vector<double> plain = attention_weights<double>(s, settings(6), q, k, noise);
  const std::vector<double> dropped = attention_weights<double>(s, settings(6, 2, p), q, k, noise);
  int kept = 0, gone = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    if (plain[i] == 0) {
      CHECK(dropped[i] == 0);
    } else if (dropped[i] == 0) {
      ++gone;
    } else {
      ++kept;
      CHECK(dropped[i] == doctest::Approx(plain[i] / (1 - p)));
    }
  }
  const double share = double(gone) / (kept + gone);
  CHECK(std::abs(share - p) < 5 * std::sqrt(p * (1 - p) / (kept + gone)));
}
