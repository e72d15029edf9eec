// Top-k where it is delicate: ties, dropped keys, and numbers that are none.
#include "attention_run.h"

using namespace focus;
using namespace focus::test;

namespace {

constexpr Pattern choosing[] = {Pattern::topk, Pattern::bottomk};

template <class T>
Mask kept(const Sizes& s, const AttentionSettings& a, const Numbers& q, const Numbers& k) {
  Mask mask;
  for (T w : attention_weights<T>(s, a, q, k)) mask.push_back(w != 0);
  return mask;
}

}  // namespace

TEST_CASE_TEMPLATE("all scores equal: the first k keys are kept, for short lists and long", T,
                   float, double) {
  for (Pattern pattern : choosing)
    for (int length : {1, 2, 5, 40, 70})
      for (int k : {1, 2, 5, 31, 32, 33, 34, 64, 69, 70}) {
        if (k > length) continue;
        const Sizes s{1, length, 2, 3};
        // Equal because all queries are 0, and because all keys are the same.
        const Numbers zero(size_t(length * 6)), same(size_t(length * 6), 0.5);
        for (const auto& [q, keys] :
             {std::pair{zero, quarters_for(s, 1)}, std::pair{quarters_for(s, 2), same}}) {
          int wrong = 0;
          const std::vector<T> w = attention_weights<T>(s, {pattern, k, 0, 2}, q, keys);
          for (size_t pair = 0; pair < w.size(); ++pair) {
            const bool first = pair % size_t(length) < size_t(k);
            wrong += !(std::abs(w[pair] - (first ? T(1) / T(k) : T(0))) < T(1e-6));
          }
          CHECK_MESSAGE(wrong == 0, str(name_of(pattern), " T ", length, " k ", k));
        }
      }
}

TEST_CASE_TEMPLATE("duplicated keys: the earlier copies are kept", T, float, double) {
  for (Pattern pattern : choosing)
    for (int period : {1, 2, 3, 7})
      for (int k : {1, 2, 5, 20, 33, 50}) {
        const Sizes s{2, 60, 2, 4};
        const Numbers q = quarters_for(s, 3);
        Numbers keys = quarters_for(s, 4);
        for (int u = 0; u < s.units(); ++u)
          for (int t = period; t < s.T; ++t)
            for (int c = 0; c < s.D; ++c) keys[s.at(u, t, c)] = keys[s.at(u, t % period, c)];
        const AttentionSettings a{pattern, k, 0, 2};
        CHECK_MESSAGE((kept<T>(s, a, q, keys) == reference_mask(a, s, q, keys)),
                      str(name_of(pattern), " period ", period, " k ", k));
      }
}

TEST_CASE_TEMPLATE("bottomk of the scores is topk of their negatives", T, float, double) {
  const Sizes s{2, 40, 2, 4};
  const Numbers q = quarters_for(s, 5), k = quarters_for(s, 6);
  Numbers minus_q;
  for (double x : q) minus_q.push_back(-x);
  for (int count : {1, 5, 32, 33, 40})
    CHECK((kept<T>(s, {Pattern::bottomk, count, 0, 2}, q, k) ==
           kept<T>(s, {Pattern::topk, count, 0, 2}, minus_q, k)));
}

TEST_CASE_TEMPLATE("keys that no query keeps get exactly no gradient", T, float, double) {
  for (Pattern pattern : choosing)
    for (int k : {1, 2, 5, 33}) {
      const Sizes s{2, 50, 2, 2};
      Numbers q = quarters_for(s, 7), keys = quarters_for(s, 8), v = numbers_for(s, 9);
      // Queries above 0, and eight keys so low and eight so high that one or the other eight are
      // kept by no query.
      for (double& x : q) x = std::abs(x) + 0.25;
      for (int u = 0; u < s.units(); ++u)
        for (int t = 3; t < 19; ++t)
          for (int c = 0; c < s.D; ++c) keys[s.at(u, t, c)] += t % 2 ? 3 : -3;
      const AttentionSettings a{pattern, k, 0, 2};
      const Mask mask = reference_mask(a, s, q, keys);
      const AttentionRun<T> run(s, a, q, keys, v, numbers_for(s, 10));
      int dropped = 0, leaks = 0, without = 0;
      for (int u = 0; u < s.units(); ++u)
        for (int j = 0; j < s.T; ++j) {
          int seen_by = 0;
          for (int i = 0; i < s.T; ++i) seen_by += mask[s.pair(u, i, j)];
          dropped += seen_by == 0;
          for (int c = 0; c < s.D; ++c) {
            const T dk = run.dk[s.at(u, j, c)], dv = run.dv[s.at(u, j, c)];
            if (seen_by == 0) leaks += !(dk == 0 && dv == 0);
            if (seen_by > 0) without += !(dv != 0);
          }
        }
      CHECK(dropped > 5);  // or there is nothing to see
      CHECK(leaks == 0);
      CHECK(without == 0);
    }
}

TEST_CASE_TEMPLATE("NaN among queries, keys or values shows in every output that depends on it", T,
                   float, double) {
  const Sizes s{2, 40, 2, 3};
  const int sick = 21;  // token; unit 1 only
  for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::block, Pattern::topk,
                          Pattern::bottomk, Pattern::random})
    for (int k : {1, 5, 33, 40})
      for (char where : {'q', 'k', 'v'}) {
        const AttentionSettings a{pattern, k, 0, 2};
        Numbers q = numbers_for(s, 11), keys = numbers_for(s, 12), v = numbers_for(s, 13);
        const bool chooses = pattern == Pattern::topk || pattern == Pattern::bottomk;
        // The keys that float and double keep are the same: random numbers are no near-ties.
        const Mask mask =
            pattern == Pattern::random ? drawn_mask(s, a, {}) : reference_mask(a, s, q, keys);
        (where == 'q' ? q : where == 'k' ? keys : v)[s.at(1, sick, 1)] = NAN;
        const AttentionRun<T> run(s, a, q, keys, v, Numbers(v.size()));
        int wrong = 0;
        for (int u = 0; u < s.units(); ++u)
          for (int i = 0; i < s.T; ++i) {
            // A choice by score needs all scores, so a NaN key spoils it even where it might lose.
            const bool sees = mask[s.pair(u, i, sick)] || (chooses && where == 'k');
            const bool sick_row = u == 1 && (where == 'q' ? i == sick : sees);
            for (int c = 0; c < s.D; ++c) {
              const bool wanted = sick_row && (where != 'v' || c == 1);
              wrong += std::isnan(run.o[s.at(u, i, c)]) != wanted;
            }
          }
        CHECK_MESSAGE(wrong == 0, str(name_of(pattern), " k ", k, " NaN in ", where));
      }
}

TEST_CASE_TEMPLATE("infinite scores: +inf gives NaN, -inf weight 0", T, float, double) {
  const Sizes s{1, 40, 1, 1};
  for (Pattern pattern : {Pattern::full, Pattern::topk, Pattern::banded})
    for (int k : {3, 33, 40}) {
      const AttentionSettings a{pattern, k, 0, 1};
      Numbers q(40, 0.5), keys = numbers_for(s, 14), v = numbers_for(s, 15);
      keys[7] = INFINITY;
      Mask mask = reference_mask(a, s, q, keys);
      std::vector<T> o = AttentionRun<T>(s, a, q, keys, v, v).o;
      int wrong = 0;
      for (int i = 0; i < 40; ++i) wrong += std::isnan(o[size_t(i)]) != bool(mask[s.pair(0, i, 7)]);
      CHECK_MESSAGE(wrong == 0, str(name_of(pattern), " k ", k));

      keys[7] = -INFINITY;
      mask = reference_mask(a, s, q, keys);
      CHECK(difference("o", s.shape(), AttentionRun<T>(s, a, q, keys, v, v).o.data(),
                       reference_attention(s, q, keys, v, mask, {}, 1, {}).o, 8) == "");
    }
}
