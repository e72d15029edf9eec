// Every pattern, size, k, number of heads and of global tokens against the dense masked reference:
// output and gradients, in float and double.
#include <set>

#include "attention_run.h"

using namespace focus;
using namespace focus::test;

namespace {

constexpr Pattern all_patterns[] = {Pattern::full, Pattern::banded,  Pattern::block,
                                    Pattern::topk, Pattern::bottomk, Pattern::random};

// Scores are exact in float (see quarters), so float must choose the same keys as the reference,
// and rows are full of ties.
template <class T>
std::string compare(const Sizes& s, const AttentionSettings& settings, int threads = 1) {
  const Numbers q = quarters_for(s, 1), k = quarters_for(s, 2), v = rounded<T>(numbers_for(s, 3)),
                d_o = rounded<T>(numbers_for(s, 4));
  const Noise noise{.on = true, .seed = 9, .step = 3};
  const Mask mask = settings.pattern == Pattern::random ? drawn_mask(s, settings, noise)
                                                        : reference_mask(settings, s, q, k);
  Mask keep;
  if (settings.dropout > 0) keep = reference_weight_dropout(mask, noise, 0, settings.dropout);
  const AttentionResult wanted = reference_attention(
      s, q, k, v, mask, keep, 1 / (1 - settings.dropout), d_o, settings.score_scale);
  const AttentionRun<T> run(s, settings, q, k, v, d_o, noise, threads);
  // Sums of 40 to 100 terms of weights, each good to some 4 units: measured 3.6 at most.
  return difference(str(settings.causal ? "causal " : "", name_of(settings.pattern), " k ",
                        settings.k, " g ", settings.global_tokens, " B ", s.B, " T ", s.T, " H ",
                        s.H, " D ", s.D, " ", settings.dropout, ": "),
                    s, run, wanted, 16);
}

// Tries every k and number of global tokens that the pattern allows, and a causal mask.
template <class F>
void for_all_settings(int T, const F& f) {
  for (Pattern pattern : all_patterns)
    for (int g : {0, 1, 3}) {
      if ((g > 0 && !is_positional(pattern)) || g >= T) continue;
      std::set<int> ks{1, 2, 3, 4, 5, 8, 9, 16, 33, T - g - 1, T - g};
      if (pattern == Pattern::full) ks = {1};
      for (int k : ks)
        if (k >= 1 && k <= T - g) {
          f(AttentionSettings{pattern, k, g, 1, 0});
          if (may_be_causal(pattern) && g == 0)
            f(AttentionSettings{.pattern = pattern, .k = k, .causal = true});
        }
    }
}

}  // namespace

TEST_CASE_TEMPLATE("attention: output and gradients of all patterns and sizes", T, float, double) {
  int compared = 0, wrong = 0;
  for (int length : {1, 2, 3, 5, 8, 17, 40})
    for_all_settings(length, [&](AttentionSettings settings) {
      for (int H : {1, 2, 3})
        for (int D : {1, 2, 16, 20}) {
          settings.heads = H;
          const std::string message = compare<T>({1 + (H + D) % 2, length, H, D}, settings);
          ++compared;
          if (!message.empty() && ++wrong <= 5) FAIL_CHECK(message);
        }
    });
  CHECK(wrong == 0);
  CHECK(compared > 3000);
}

TEST_CASE_TEMPLATE("attention: dropout on the weights, for all patterns", T, float, double) {
  for (int length : {1, 3, 8, 17, 40})
    for_all_settings(length, [&](AttentionSettings settings) {
      if (settings.pattern == Pattern::random) return;  // doubles have entries too: see its test
      settings.heads = 2;
      settings.dropout = 0.3;
      const std::string message = compare<T>({2, length, 2, 5}, settings);
      if (!message.empty()) FAIL_CHECK(message);
    });
  CHECK(true);
}

TEST_CASE_TEMPLATE("attention: longer than the blocks of 48 queries, on three threads", T, float,
                   double) {
  for (int length : {47, 48, 49, 101})
    for (Pattern pattern : all_patterns)
      for (int k : {1, 5, 32, 33, 46})
        for (double dropout : {0.0, 0.2}) {
          if (pattern == Pattern::random && dropout > 0) continue;
          AttentionSettings settings{pattern, k, is_positional(pattern), 2, dropout};
          std::string message = compare<T>({2, length, 2, 7}, settings, 3);
          if (!message.empty()) FAIL_CHECK(message);
          if (!may_be_causal(pattern)) continue;
          settings.global_tokens = 0, settings.causal = true;
          message = compare<T>({2, length, 2, 7}, settings, 3);
          if (!message.empty()) FAIL_CHECK(message);
        }
  CHECK(true);
}

TEST_CASE_TEMPLATE("attention: sharp scores, up to hundreds", T, float, double) {
  const Sizes s{1, 17, 2, 16};
  for (Pattern pattern : all_patterns) {
    if (pattern == Pattern::random) continue;
    const AttentionSettings settings{pattern, 5, 0, 2, 0};
    Numbers q = quarters_for(s, 5), k = quarters_for(s, 6);
    for (double& x : q) x *= 16;
    for (double& x : k) x *= 16;
    const Numbers v = rounded<T>(numbers_for(s, 7)), d_o = rounded<T>(numbers_for(s, 8));
    const AttentionResult wanted =
        reference_attention(s, q, k, v, reference_mask(settings, s, q, k), {}, 1, d_o);
    // Rounding of score · scale is relative to scores of some 100. Measured 11.
    CHECK(difference(name_of(pattern), s, AttentionRun<T>(s, settings, q, k, v, d_o), wanted, 60) ==
          "");
  }
}

TEST_CASE_TEMPLATE("attention: a factor on the scores, for all patterns", T, float, double) {
  for (int length : {1, 3, 17, 50})
    for (double scale : {0.5, 4.0})
      for_all_settings(length, [&](AttentionSettings settings) {
        if (settings.pattern == Pattern::random) return;
        settings.heads = 2, settings.dropout = length == 17 ? 0.2 : 0;
        settings.score_scale = scale;
        const std::string message = compare<T>({2, length, 2, 5}, settings);
        if (!message.empty()) FAIL_CHECK(str("scale ", scale, ": ", message));
      });
  CHECK(true);
}

TEST_CASE_TEMPLATE("attention: k = T is full attention, with the same dropout", T, float, double) {
  for (int length : {1, 2, 17, 40, 50})
    for (double dropout : {0.0, 0.3}) {
      const Sizes s{2, length, 2, 5};
      const Noise noise{.on = true, .seed = 21, .step = 4};
      const Numbers q = numbers_for(s, 1), k = numbers_for(s, 2), v = numbers_for(s, 3),
                    d_o = numbers_for(s, 4);
      const AttentionRun<T> full(s, {Pattern::full, 0, 0, 2, dropout}, q, k, v, d_o, noise);
      AttentionResult wanted;
      wanted.o.assign(full.o.begin(), full.o.end()),
          wanted.dq.assign(full.dq.begin(), full.dq.end());
      wanted.dk.assign(full.dk.begin(), full.dk.end()),
          wanted.dv.assign(full.dv.begin(), full.dv.end());
      for (Pattern pattern : {Pattern::topk, Pattern::bottomk, Pattern::banded, Pattern::block}) {
        const AttentionRun<T> run(s, {pattern, length, 0, 2, dropout}, q, k, v, d_o, noise);
        CHECK(difference(name_of(pattern), s, run, wanted, 16) == "");
      }
    }
}

TEST_CASE_TEMPLATE("attention: under a causal mask a query's output has nothing of later tokens", T,
                   float, double) {
  for (const int length : {2, 17, 51, 70})
    for (const Pattern pattern : {Pattern::full, Pattern::banded, Pattern::topk})
      for (const int k : {1, 5, 33}) {
        const Sizes s{1, length, 2, 5};
        AttentionSettings settings{pattern, std::min(k, length), 0, 2, 0.2};
        settings.causal = true;
        const Noise noise{.on = true, .seed = 31, .step = 1};
        Numbers q = numbers_for(s, 1), kk = numbers_for(s, 2), v = numbers_for(s, 3);
        const Numbers d_o = numbers_for(s, 4);
        const std::vector<T> before = AttentionRun<T>(s, settings, q, kk, v, d_o, noise).o;
        for (const int changed : {1, length / 2, length - 1}) {
          Numbers other_q = q, other_k = kk, other_v = v;
          for (int u = 0; u < s.units(); ++u)
            for (int c = 0; c < s.D; ++c) {
              const size_t at = s.at(u, changed, c);
              other_q[at] += 5, other_k[at] = 100 - kk[at], other_v[at] = -1000;
            }
          const std::vector<T> after =
              AttentionRun<T>(s, settings, other_q, other_k, other_v, d_o, noise).o;
          const auto end = ptrdiff_t(s.at(0, changed, 0));
          CHECK(std::equal(before.begin(), before.begin() + end, after.begin()));
          CHECK(!std::equal(before.begin() + end, before.end(), after.begin() + end));
        }
      }
}

TEST_CASE_TEMPLATE("attention: the same bytes for 1, 2 and 3 threads", T, float, double) {
  const Sizes s{3, 19, 2, 5};
  const Noise noise{.on = true, .seed = 5, .step = 6};
  const Numbers q = numbers_for(s, 1), k = numbers_for(s, 2), v = numbers_for(s, 3),
                d_o = numbers_for(s, 4);
  std::vector<AttentionSettings> all;
  for (Pattern pattern : all_patterns) {
    all.push_back({pattern, 4, is_positional(pattern) ? 2 : 0, 2, 0.2});
    if (may_be_causal(pattern)) all.push_back({pattern, 4, 0, 2, 0.2, 1, true});
  }
  for (const AttentionSettings& settings : all) {
    const AttentionRun<T> one(s, settings, q, k, v, d_o, noise, 1);
    for (int threads : {2, 3}) {
      const AttentionRun<T> more(s, settings, q, k, v, d_o, noise, threads);
      CHECK(one.o == more.o);
      CHECK(one.dq == more.dq);
      CHECK(one.dk == more.dk);
      CHECK(one.dv == more.dv);
    }
  }
}
