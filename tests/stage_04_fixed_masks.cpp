// Stage 04: which keys banded and block attention keep, with and without global tokens, and that
// attention over the lists is attention under the mask.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "attention_run.h"
#include "golden_run.h"

using namespace focus;
using namespace focus::test;

namespace {

using List = std::vector<int>;

std::string text(const List& list) {
  std::string all;
  for (int key : list) all += str(all.empty() ? "" : " ", key);
  return str("[", all, "]");
}

std::vector<List> key_lists(const AttentionSettings& a, int T) {
  std::vector<int> begin(size_t(T) + 1), keys(size_t(count_nnz(a, T)) + size_t(4 * T));
  fill_key_lists(a, T, begin.data(), keys.data());
  std::vector<List> lists;
  for (int i = 0; i < T; ++i)
    lists.emplace_back(keys.begin() + begin[size_t(i)], keys.begin() + begin[size_t(i) + 1]);
  CHECK_MESSAGE(begin[size_t(T)] == count_nnz(a, T), "count_nnz says ", count_nnz(a, T),
                ", the lists have ", begin[size_t(T)]);
  return lists;
}

// The first query whose list is wrong, or nothing.
std::string wrong_list(const AttentionSettings& a, int T, const std::vector<List>& wanted) {
  const std::vector<List> got = key_lists(a, T);
  for (size_t i = 0; i < wanted.size(); ++i)
    if (got[i] != wanted[i])
      return str(name_of(a.pattern), "(", a.k, ")+", a.global_tokens, ", ", T, " tokens, query ", i,
                 ": got ", text(got[i]), ", wanted ", text(wanted[i]));
  return "";
}

std::vector<List> lists_by_definition(const AttentionSettings& a, int T) {
  std::vector<List> lists{size_t(T)};
  for (int i = 0; i < T; ++i)
    for (int j = 0; j < T; ++j)
      if (reference_sees(a, T, i, j)) lists[size_t(i)].push_back(j);
  return lists;
}

const AttentionSettings some[] = {{Pattern::banded, 5, 0}, {Pattern::banded, 4, 1},
                                  {Pattern::banded, 3, 3}, {Pattern::block, 5, 0},
                                  {Pattern::block, 4, 1},  {Pattern::block, 1, 2}};

}  // namespace

TEST_CASE("banded: a window of exactly k, shifted inwards at both ends") {
  INFO("it starts (k-1)/2 before the query, so for even k the right side has one key more");
  CHECK(wrong_list({Pattern::banded, 3, 0}, 5,
                   {{0, 1, 2}, {0, 1, 2}, {1, 2, 3}, {2, 3, 4}, {2, 3, 4}}) == "");
  CHECK(wrong_list({Pattern::banded, 2, 0}, 4, {{0, 1}, {1, 2}, {2, 3}, {2, 3}}) == "");
  CHECK(wrong_list({Pattern::banded, 4, 0}, 4,
                   {{0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1, 2, 3}}) == "");
}

TEST_CASE("block: a query sees its own block; the last one may be short") {
  CHECK(wrong_list({Pattern::block, 2, 0}, 5, {{0, 1}, {0, 1}, {2, 3}, {2, 3}, {4}}) == "");
  CHECK(wrong_list({Pattern::block, 3, 0}, 6,
                   {{0, 1, 2}, {0, 1, 2}, {0, 1, 2}, {3, 4, 5}, {3, 4, 5}, {3, 4, 5}}) == "");
}

TEST_CASE("global tokens: the last g tokens see all and are seen by all") {
  INFO("the window and the blocks cover the tokens before them only");
  CHECK(wrong_list({Pattern::banded, 2, 1}, 4, {{0, 1, 3}, {1, 2, 3}, {1, 2, 3}, {0, 1, 2, 3}}) ==
        "");
  CHECK(wrong_list({Pattern::block, 2, 2}, 5,
                   {{0, 1, 3, 4}, {0, 1, 3, 4}, {2, 3, 4}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}}) ==
        "");
}

TEST_CASE("every k, length and number of global tokens that is small") {
  for (Pattern pattern : {Pattern::banded, Pattern::block})
    for (int T = 1; T <= 16; ++T)
      for (int g = 0; g < T && g <= 3; ++g)
        for (int k = 1; k <= T - g; ++k) {
          const AttentionSettings a{pattern, k, g};
          const std::string wrong = wrong_list(a, T, lists_by_definition(a, T));
          if (wrong != "") {
            FAIL_CHECK(wrong);
            return;  // one is enough to learn from
          }
        }
}

TEST_CASE_TEMPLATE("attention over the lists is attention under the mask", T, float, double) {
  for (AttentionSettings a : some)
    for (double dropout : {0.0, 0.3}) {
      a.heads = 2, a.dropout = dropout;
      const Sizes s{2, 14, 2, 5};
      const Numbers q = rounded<T>(numbers_for(s, 1)), k = rounded<T>(numbers_for(s, 2)),
                    v = rounded<T>(numbers_for(s, 3)), d_o = rounded<T>(numbers_for(s, 4));
      const Noise noise{.on = true, .seed = 5, .step = 6};
      const Mask mask = reference_mask(a, s, q, k);
      const Mask keep = dropout > 0 ? reference_weight_dropout(mask, noise, 0, dropout) : Mask{};
      const AttentionResult wanted =
          reference_attention(s, q, k, v, mask, keep, 1 / (1 - dropout), d_o);
      const AttentionRun<T> run(s, a, q, k, v, d_o, noise);
      CHECK(difference(str(name_of(a.pattern), "(", a.k, ")+", a.global_tokens, ", dropout ",
                           dropout, ": "),
                       s, run, wanted, 16) == "");
    }
}

TEST_CASE("what a query may not see cannot reach it, not even NaN") {
  const Sizes s{1, 12, 1, 3};
  for (AttentionSettings a : some)
    for (int sick = 0; sick < s.T; ++sick) {
      const Numbers q = numbers_for(s, 1);
      Numbers k = numbers_for(s, 2), v = numbers_for(s, 3);
      for (int c = 0; c < s.D; ++c) k[s.at(0, sick, c)] = v[s.at(0, sick, c)] = NAN;
      const AttentionRun<double> run(s, a, q, k, v, Numbers(v.size()));
      for (int i = 0; i < s.T; ++i)
        if (std::isnan(run.o[s.at(0, i, 0)]) != reference_sees(a, s.T, i, sick)) {
          FAIL_CHECK(str(name_of(a.pattern), "(", a.k, ")+", a.global_tokens, ": key ", sick,
                         " is NaN,", " query ", i, " gives ", run.o[s.at(0, i, 0)], " and may",
                         reference_sees(a, s.T, i, sick) ? "" : " not", " see it"));
          return;
        }
    }
}

TEST_CASE("a band or a block of all tokens is full attention") {
  const Sizes s{2, 9, 1, 4};
  const Numbers q = numbers_for(s, 1), k = numbers_for(s, 2), v = numbers_for(s, 3);
  const AttentionRun<double> full(s, {}, q, k, v, q);
  for (Pattern pattern : {Pattern::banded, Pattern::block}) {
    const AttentionRun<double> run(s, {pattern, 9, 0}, q, k, v, q);
    CHECK(difference(str(name_of(pattern), "(9): "), s, run,
                     {full.o, {}, full.dq, full.dk, full.dv}, 16) == "");
  }
}

TEST_CASE("the authors' model: banded and block, even k, three global tokens") {
  for (const char* name :
       {"banded", "banded_k4_length6", "banded_global1", "banded_even_3heads_global3", "block"})
    CHECK(wrong_golden(name) == "");
}
