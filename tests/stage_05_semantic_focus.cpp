// Stage 05: choosing the k largest scores, above all where scores are equal, and attention over the
// chosen keys, forward and backward.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "attention/choose.h"
#include "attention/selection.h"
#include "attention_run.h"
#include "golden_run.h"

using namespace focus;
using namespace focus::test;

namespace {

using List = std::vector<int>;

template <class Numbers>
std::string text(const Numbers& list) {
  std::string all;
  for (auto x : list) all += str(all.empty() ? "" : " ", x);
  return str("[", all, "]");
}

// Key j is kept if fewer than k keys beat it: by a larger score, or by the same and a lower index.
List kept_by_definition(const Numbers& s, int k) {
  List kept;
  for (int j = 0; j < int(s.size()); ++j) {
    int better = 0;
    for (int l = 0; l < int(s.size()); ++l)
      better += s[size_t(l)] > s[size_t(j)] || (s[size_t(l)] == s[size_t(j)] && l < j);
    if (better < k) kept.push_back(j);
  }
  return kept;
}

template <class T>
List plain_selection(const Numbers& scores, int k) {
  const std::vector<T> s = as<T>(scores);
  List keys(size_t(k), -1), order(s.size());
  CHECK(select_largest(s.data(), int(s.size()), k, keys.data(), order.data()));
  return keys;
}

// Every lane holds the row turned by another number of places, so that each has ties of its own.
template <class T>
List lane_selection(const Numbers& scores, int k, int lane) {
  const int n = int(scores.size());
  std::vector<T> columns(size_t(n) * size_t(lanes<T>));
  for (int j = 0; j < n; ++j)
    for (int l = 0; l < lanes<T>; ++l)
      columns[size_t(j * lanes<T> + l)] = T(scores[size_t((j + l - lane + lanes<T> * n) % n)]);
  FastLists<T> lists;
  select_largest_of_lanes(columns.data(), lanes<T>, n, k, lists);
  List keys;
  for (int l = 0; l < k; ++l) keys.push_back(int(lists.key[l][lane]));
  std::sort(keys.begin(), keys.end());
  return keys;
}

template <class T>
std::string wrong_selection(const Numbers& s, int k) {
  const List wanted = kept_by_definition(s, k);
  const auto compare = [&](const char* version, const List& got) -> std::string {
    if (got == wanted) return "";
    return str(version, ", k = ", k, " of ", text(s), ": got keys ", text(got), ", wanted ",
               text(wanted));
  };
  std::string wrong = compare("select_largest", plain_selection<T>(s, k));
  for (int lane = 0; wrong == "" && k <= longest_fast_list && lane < lanes<T>; ++lane)
    wrong = compare("select_largest_of_lanes", lane_selection<T>(s, k, lane));
  return wrong;
}

// Scores in quarters: exact in float, and full of ties.
template <class T>
std::string wrong_attention(const Sizes& s, const AttentionSettings& a) {
  const Numbers q = quarters_for(s, 1), k = quarters_for(s, 2), v = rounded<T>(numbers_for(s, 3)),
                d_o = rounded<T>(numbers_for(s, 4));
  const Noise noise{.on = true, .seed = 5, .step = 6};
  const Mask mask = reference_mask(a, s, q, k);
  const Mask keep = a.dropout > 0 ? reference_weight_dropout(mask, noise, 0, a.dropout) : Mask{};
  const AttentionResult wanted =
      reference_attention(s, q, k, v, mask, keep, 1 / (1 - a.dropout), d_o);
  return difference(str("topk(", a.k, ") of ", s.T, " tokens, dropout ", a.dropout, ": "), s,
                    AttentionRun<T>(s, a, q, k, v, d_o, noise), wanted, 16);
}

}  // namespace

TEST_CASE_TEMPLATE("selection: of equal scores the lower index wins", T, float, double) {
  INFO("by hand: the 3s at 1, 2 and 4 come first, of the three 2s the one at 0");
  CHECK(wrong_selection<T>({2, 3, 3, 2, 3, 2}, 4) == "");
  CHECK(plain_selection<T>({2, 3, 3, 2, 3, 2}, 4) == List{0, 1, 2, 4});
  CHECK(wrong_selection<T>({1, 1, 1, 1, 1}, 2) == "");
  CHECK(wrong_selection<T>({0.0, -0.0, 0.0, -0.0}, 2) == "");  // both zeros are equal
  INFO("a list 2 2 that a 5 enters: the second 2 falls out, not the first");
  CHECK(wrong_selection<T>({2, 2, 5}, 2) == "");
  CHECK(wrong_selection<T>({1, 4, 4, 4, 7}, 3) == "");
}

TEST_CASE_TEMPLATE("selection: both versions, every k, rows with and without ties", T, float,
                   double) {
  for (int n : {1, 2, 5, 17, 33, 40})
    for (int different : {1, 2, 3, 8, 1000}) {  // scores that a row can have
      Numbers s = random_numbers(size_t(n), uint32_t(n + different));
      for (double& x : s) x = std::floor(x * different / 2);
      for (int k = 1; k <= n; ++k) {
        const std::string wrong = wrong_selection<T>(s, k);
        if (wrong != "") {
          FAIL_CHECK(wrong);
          return;  // one is enough to learn from
        }
      }
    }
}

TEST_CASE_TEMPLATE("selection: a NaN is reported", T, float, double) {
  for (int at : {0, 3, 6}) {
    std::vector<T> s = {7, 6, 5, 4, 3, 2, 1}, columns;
    s[size_t(at)] = T(NAN);
    List keys(2), order(7);
    CHECK_FALSE(select_largest(s.data(), 7, 2, keys.data(), order.data()));
    for (T x : s) columns.insert(columns.end(), size_t(lanes<T>), x);
    FastLists<T> lists;
    select_largest_of_lanes(columns.data(), lanes<T>, 7, 2, lists);
    int silent = 0;
    for (int lane = 0; lane < lanes<T>; ++lane) silent += lists.has_nan[lane] == 0;
    CHECK(silent == 0);
  }
}

TEST_CASE_TEMPLATE("top-k is attention under the mask of the k largest scores", T, float, double) {
  INFO("the softmax runs over the kept keys only; no gradient goes to the others");
  for (int length : {1, 7, 40, 70})  // 70: more than a block of queries
    for (int k : {1, 2, 5, 33, 70})  // 33: too long for the fast lists
      for (double dropout : {0.0, 0.3})
        if (k <= length)
          CHECK(wrong_attention<T>({2, length, 2, 4}, {Pattern::topk, k, 0, 2, dropout}) == "");
}

TEST_CASE("k = T is full attention") {
  const Sizes s{2, 11, 1, 4};
  const Numbers q = numbers_for(s, 1), k = numbers_for(s, 2), v = numbers_for(s, 3);
  const AttentionRun<double> full(s, {}, q, k, v, q), all(s, {Pattern::topk, 11, 0}, q, k, v, q);
  CHECK(difference("topk(11): ", s, all, {full.o, {}, full.dq, full.dk, full.dv}, 16) == "");
}

TEST_CASE("top-1 looks a value up: each query takes the value of the key that answers to it") {
  // Keys are the unit vectors in some order; query i asks for number i.
  const Sizes s{1, 6, 1, 6};
  const int place[] = {4, 2, 0, 5, 1, 3};
  Numbers q(36), k(36), wanted;
  const Numbers v = numbers_for(s, 3);
  for (int i = 0; i < 6; ++i) {
    q[s.at(0, i, i)] = 1;
    k[s.at(0, place[i], i)] = 1;
    for (int c = 0; c < 6; ++c) wanted.push_back(v[s.at(0, place[i], c)]);
  }
  const AttentionRun<double> run(s, {Pattern::topk, 1, 0}, q, k, v, q);
  CHECK(difference("o", s.shape(), run.o.data(), wanted, 1) == "");
  INFO("a softmax over one key is 1 whatever the score: no gradient for queries and keys");
  CHECK(run.dq == Numbers(36));
  CHECK(run.dk == Numbers(36));
}

TEST_CASE_TEMPLATE("a key that no query keeps has a gradient of exactly zero", T, float, double) {
  // Positive queries; even keys are positive and odd ones negative, so nobody keeps an odd one.
  const Sizes s{1, 20, 1, 3};
  Numbers q = quarters_for(s, 1), k = quarters_for(s, 2);
  for (double& x : q) x = std::abs(x) + 0.25;
  for (int t = 0; t < s.T; ++t)
    for (int c = 0; c < s.D; ++c)
      k[s.at(0, t, c)] = (t % 2 ? -1 : 1) * (std::abs(k[s.at(0, t, c)]) + 0.25);
  const AttentionRun<T> run(s, {Pattern::topk, 5, 0}, q, k, numbers_for(s, 3), numbers_for(s, 4));
  double kept = 0;
  for (int t = 0; t < s.T; ++t)
    for (int c = 0; c < s.D; ++c) {
      const T dk = run.dk[s.at(0, t, c)], dv = run.dv[s.at(0, t, c)];
      if (t % 2)
        CHECK_MESSAGE((dk == 0 && dv == 0), "dropped key ", t, ", channel ", c, ": dk ", dk,
                      ", dv ", dv);
      else
        kept += std::abs(double(dk)) + std::abs(double(dv));
    }
  CHECK(kept > 1);  // or there was nothing to see
}

TEST_CASE("a NaN key makes every query NaN, a NaN query only itself") {
  // A choice by score needs all scores: a NaN must show even where it would not be kept.
  const Sizes s{1, 40, 1, 2};
  const int sick = 37;
  for (int k : {5, 33})
    for (char where : {'q', 'k'}) {
      Numbers q = numbers_for(s, 1), keys = numbers_for(s, 2);
      (where == 'q' ? q : keys)[s.at(0, sick, 1)] = NAN;
      const Numbers v = numbers_for(s, 3);
      const AttentionRun<double> run(s, {Pattern::topk, k, 0}, q, keys, v, v);
      for (int i = 0; i < s.T; ++i)
        CHECK_MESSAGE(std::isnan(run.o[s.at(0, i, 0)]) == (where == 'k' || i == sick), "topk(", k,
                      "), NaN in ", std::string(1, where), " of token ", sick, ": query ", i,
                      " gives ", run.o[s.at(0, i, 0)]);
    }
}

TEST_CASE(
    "choosing for a query with a NaN score: all of its scores are NaN, the others' are scores") {
  constexpr int N = 50, rows = 3;
  for (int k : {5, 33}) {
    std::vector<double> scores(size_t(N * sparse::block_queries), 0), column(N + 1, 4711),
        s(size_t(rows * k), 7);
    List order(N), keys(size_t(rows * k), -1);
    for (int j = 0; j < N; ++j)
      for (int i = 0; i < rows; ++i) scores[size_t(j * sparse::block_queries + i)] = j + 100 * i;
    scores[size_t(7 * sparse::block_queries + 1)] = NAN;
    sparse::choose_block(scores.data(), N, k, rows, keys.data(), s.data(), column.data(),
                         order.data());
    CHECK_MESSAGE(column[N] == 4711, "got a number written behind the column of ", N, " scores");
    for (int i = 0; i < rows; ++i)
      for (int e = 0; e < k; ++e) {
        const double got = s[size_t(i * k + e)], wanted = i == 1 ? NAN : N - k + e + 100 * i;
        CHECK_MESSAGE((got == wanted || (std::isnan(got) && std::isnan(wanted))), "topk(", k,
                      "), query ", i, ", entry ", e, ": ", got_wanted(got, wanted));
      }
  }
}

TEST_CASE("sparse work: k entries a query, not T") {
  CHECK(count_nnz({Pattern::topk, 5, 0}, 600) == 3000);
  CHECK(count_nnz({Pattern::full, 0, 0}, 600) == 360000);
}

TEST_CASE("the authors' model: top-k with k = 1, 5 and the whole length") {
  for (const char* name : {"topk", "topk_k1", "topk_k_is_length"}) CHECK(wrong_golden(name) == "");
}
