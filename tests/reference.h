// What the operations should compute, in double and in the plainest form: one loop for each sum,
// masks over all pairs of tokens, nothing shared with src/ but the random generator's definition.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "attention/pattern.h"
#include "rng.h"
#include "tensor/tape.h"

namespace focus::test {

using Numbers = std::vector<double>;

// y[m,o] = Σ_i x[m,i] w[o,i] + b[o].
inline Numbers reference_linear(const Numbers& x, const Numbers& w, const Numbers& b, int in,
                                int out) {
  const int M = int(x.size()) / in;
  Numbers y(size_t(M) * size_t(out));
  for (int m = 0; m < M; ++m)
    for (int o = 0; o < out; ++o) {
      double sum = b[size_t(o)];
      for (int i = 0; i < in; ++i) sum += x[size_t(m * in + i)] * w[size_t(o * in + i)];
      y[size_t(m * out + o)] = sum;
    }
  return y;
}

inline Numbers reference_layer_norm(const Numbers& x, int C, double epsilon) {
  Numbers y(x.size());
  for (size_t m = 0; m < x.size(); m += size_t(C)) {
    double mean = 0, variance = 0;
    for (int c = 0; c < C; ++c) mean += x[m + size_t(c)] / C;
    for (int c = 0; c < C; ++c) variance += std::pow(x[m + size_t(c)] - mean, 2) / C;
    for (int c = 0; c < C; ++c)
      y[m + size_t(c)] = (x[m + size_t(c)] - mean) / std::sqrt(variance + epsilon);
  }
  return y;
}

// Mean over the batch of -ln softmax(logits)[label].
inline double reference_cross_entropy(const Numbers& logits, const std::vector<int>& labels,
                                      int classes) {
  double loss = 0;
  for (size_t b = 0; b < labels.size(); ++b) {
    double sum = 0;
    for (int n = 0; n < classes; ++n) sum += std::exp(logits[b * size_t(classes) + size_t(n)]);
    loss -= std::log(std::exp(logits[b * size_t(classes) + size_t(labels[b])]) / sum);
  }
  return loss / double(labels.size());
}

// Whether dropout keeps element i: the i-th 16-bit piece of the stream (seed, dropout, step, site),
// eight in each Philox block, low halves first, is at least p · 2¹⁶ (rounded, and at least 1).
inline bool reference_keeps(const Noise& noise, uint32_t site, double p, uint64_t i) {
  const uint64_t block = i / 8;
  const Philox::Counter counter{uint32_t(block), noise.step, site,
                                uint32_t(Stream::dropout) | uint32_t(block >> 32 << 8)};
  const Philox::Counter bits = Philox::block(counter, Philox::key_of(noise.seed));
  const uint32_t word = bits[size_t(i % 8 / 2)];
  const uint32_t piece = i % 2 == 0 ? word & 0xffff : word >> 16;
  return piece >= std::max(1l, std::lround(p * 65536));
}

// Attention -----------------------------------------------------------------------------------

// Sizes of an attention problem. Masks are (B,H,T,T): may query i see key j?
struct Sizes {
  int B, T, H, D;
  int units() const { return B * H; }
  Shape shape() const { return {B, T, H * D}; }
  size_t at(int unit, int t, int c) const {  // in q, k, v, o
    return (size_t(unit / H) * size_t(T) + size_t(t)) * size_t(H * D) + size_t(unit % H * D + c);
  }
  size_t pair(int unit, int i, int j) const {  // in masks and probabilities
    return (size_t(unit) * size_t(T) + size_t(i)) * size_t(T) + size_t(j);
  }
  size_t pairs() const { return size_t(units()) * size_t(T) * size_t(T); }
};
using Mask = std::vector<char>;

inline double reference_score(const Sizes& s, const Numbers& q, const Numbers& k, int unit, int i,
                              int j) {
  double sum = 0;
  for (int c = 0; c < s.D; ++c) sum += q[s.at(unit, i, c)] * k[s.at(unit, j, c)];
  return sum;
}

// May query i see key j under a pattern that looks at positions only? Straight from the paper's
// definitions: the last g of T tokens are global. Causal: the query itself and those before it.
inline bool reference_sees(const AttentionSettings& a, int T, int i, int j) {
  const int n = T - a.global_tokens;
  if (a.causal) return j <= i && (a.pattern != Pattern::banded || j > i - a.k);
  if (a.pattern == Pattern::full || i >= n || j >= n) return true;
  if (a.pattern == Pattern::block) return i / a.k == j / a.k;
  int start = i - (a.k - 1) / 2;  // k consecutive keys, moved until all of them exist
  while (start < 0) ++start;
  while (start + a.k > n) --start;
  return j >= start && j < start + a.k;
}

// The mask of any pattern but random. topk keeps key j if fewer than k keys beat it: those with a
// larger score, and those with the same score and a lower index; causal: among those up to i.
inline Mask reference_mask(const AttentionSettings& a, const Sizes& s, const Numbers& q,
                           const Numbers& k) {
  Mask mask(s.pairs());
  const bool by_score = a.pattern == Pattern::topk || a.pattern == Pattern::bottomk;
  const double sign = a.pattern == Pattern::bottomk ? -1 : 1;
  Numbers score(size_t(s.T));
  for (int u = 0; u < s.units(); ++u)
    for (int i = 0; i < s.T; ++i) {
      for (int j = 0; j < s.T; ++j) score[size_t(j)] = sign * reference_score(s, q, k, u, i, j);
      for (int j = 0; j < s.T; ++j) {
        int better = 0;
        for (int l = 0; by_score && l < (a.causal ? i + 1 : s.T); ++l)
          better += score[size_t(l)] > score[size_t(j)] ||
                    (score[size_t(l)] == score[size_t(j)] && l < j);
        mask[s.pair(u, i, j)] =
            by_score ? better < a.k && (!a.causal || j <= i) : reference_sees(a, s.T, i, j);
      }
    }
  return mask;
}

// keep[pair] of dropout on the weights. The elements of the use are the kept pairs, in order of
// unit, query, key.
inline Mask reference_weight_dropout(const Mask& mask, const Noise& noise, uint32_t site,
                                     double p) {
  Mask keep(mask.size());
  uint64_t element = 0;
  for (size_t pair = 0; pair < mask.size(); ++pair)
    if (mask[pair]) keep[pair] = reference_keeps(noise, site, p, element++);
  return keep;
}

struct AttentionResult {
  Numbers o, p;        // output; probabilities before dropout (B,H,T,T), 0 where masked
  Numbers dq, dk, dv;  // gradients, if d_o was given
};

// softmax(factor_of_scores · Q Kᵀ / √D where mask, -inf elsewhere) V, with dropout if keep is not
// empty.
inline AttentionResult reference_attention(const Sizes& s, const Numbers& q, const Numbers& k,
                                           const Numbers& v, const Mask& mask, const Mask& keep,
                                           double keep_scale, const Numbers& d_o,
                                           double factor_of_scores = 1) {
  AttentionResult r;
  r.o.resize(q.size()), r.p.resize(s.pairs());
  r.dq.resize(q.size()), r.dk.resize(q.size()), r.dv.resize(q.size());
  const double root = std::sqrt(double(s.D)) / factor_of_scores;
  Numbers score(size_t(s.T)), dp(size_t(s.T));
  for (int u = 0; u < s.units(); ++u)
    for (int i = 0; i < s.T; ++i) {
      double total = 0, top = -INFINITY;
      for (int j = 0; j < s.T; ++j) {
        score[size_t(j)] =
            mask[s.pair(u, i, j)] ? reference_score(s, q, k, u, i, j) / root : -INFINITY;
        top = std::max(top, score[size_t(j)]);
      }
      for (int j = 0; j < s.T; ++j) total += std::exp(score[size_t(j)] - top);
      for (int j = 0; j < s.T; ++j) r.p[s.pair(u, i, j)] = std::exp(score[size_t(j)] - top) / total;
      // What dropout makes of weight j: this factor times it.
      const auto factor = [&](int j) {
        return keep.empty() ? 1.0 : keep[s.pair(u, i, j)] ? keep_scale : 0.0;
      };
      for (int j = 0; j < s.T; ++j)
        for (int c = 0; c < s.D; ++c)
          r.o[s.at(u, i, c)] += factor(j) * r.p[s.pair(u, i, j)] * v[s.at(u, j, c)];
      if (d_o.empty()) continue;

      double mean = 0;
      for (int j = 0; j < s.T; ++j) {
        dp[size_t(j)] = 0;
        for (int c = 0; c < s.D; ++c)
          dp[size_t(j)] += factor(j) * d_o[s.at(u, i, c)] * v[s.at(u, j, c)];
        mean += r.p[s.pair(u, i, j)] * dp[size_t(j)];
      }
      for (int j = 0; j < s.T; ++j) {
        const double p = r.p[s.pair(u, i, j)], ds = p * (dp[size_t(j)] - mean) / root;
        for (int c = 0; c < s.D; ++c) {
          r.dv[s.at(u, j, c)] += factor(j) * p * d_o[s.at(u, i, c)];
          r.dq[s.at(u, i, c)] += ds * k[s.at(u, j, c)];
          r.dk[s.at(u, j, c)] += ds * q[s.at(u, i, c)];
        }
      }
    }
  return r;
}

}  // namespace focus::test
