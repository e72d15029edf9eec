// Runs the attention operation for tests.
#pragma once

#include <doctest/doctest.h>

#include "attention/attention.h"
#include "close.h"
#include "gradient_check.h"
#include "reference.h"

namespace focus::test {

// Output and gradients (of Σ d_o · o) of one attention operation on the numbers given.
template <class T>
struct AttentionRun {
  std::vector<T> o, dq, dk, dv;

  AttentionRun(const Sizes& s, const AttentionSettings& settings, const Numbers& q,
               const Numbers& k, const Numbers& v, const Numbers& d_o, Noise noise = {},
               int threads = 1) {
    Input<T> q_input("q", s.shape(), q), k_input("k", s.shape(), k), v_input("v", s.shape(), v);
    Workers workers(threads);
    Tape<T> tape(workers);
    reset_poisoned(tape, noise, 8 * (s.pairs() + q.size()) + 10000 * size_t(threads));
    // A parameter among activations: both kinds of gradient.
    const Tensor<T> out = attention(tape, copied(tape, q_input.tensor()), k_input.tensor(),
                                    copied(tape, v_input.tensor()), settings);
    CHECK_UNARY(out.shape == s.shape());
    o.assign(out.data, out.data + out.size());
    tape.backward(weighted_sum(tape, out, d_o));
    dq = q_input.gradient_value, dk = k_input.gradient_value, dv = v_input.gradient_value;
  }
};

// Empty if the run agrees with the reference, else the first tensor that does not.
template <class T>
std::string difference(const std::string& what, const Sizes& s, const AttentionRun<T>& run,
                       const AttentionResult& wanted, double units) {
  const auto one = [&](const char* name, const std::vector<T>& got, const Numbers& reference) {
    return difference(what + name, s.shape(), got.data(), reference, units);
  };
  for (const std::string& message : {one("o", run.o, wanted.o), one("dq", run.dq, wanted.dq),
                                     one("dk", run.dk, wanted.dk), one("dv", run.dv, wanted.dv)})
    if (!message.empty()) return message;
  return "";
}

// The attention weights (B,H,T,T) that queries and keys lead to: with the identity for values, the
// output is the weights.
template <class T>
std::vector<T> attention_weights(const Sizes& s, const AttentionSettings& settings,
                                 const Numbers& q, const Numbers& k, Noise noise = {}) {
  // Heads of width T + D: D channels of scores, T of values. √(T + D) replaces √D in the scale.
  const Sizes wide{s.B, s.T, s.H, s.T + s.D};
  const size_t n = size_t(wide.units() * wide.T * wide.D);
  Numbers wide_q(n), wide_k(n), wide_v(n);
  const double rescale = std::sqrt(double(wide.D) / s.D);
  for (int u = 0; u < s.units(); ++u)
    for (int t = 0; t < s.T; ++t) {
      for (int c = 0; c < s.D; ++c) {
        wide_q[wide.at(u, t, c)] = q[s.at(u, t, c)] * rescale;
        wide_k[wide.at(u, t, c)] = k[s.at(u, t, c)];
      }
      wide_v[wide.at(u, t, s.D + t)] = 1;
    }
  const AttentionRun<T> run(wide, settings, wide_q, wide_k, wide_v, Numbers(n), noise);
  std::vector<T> weights(s.pairs());
  for (int u = 0; u < s.units(); ++u)
    for (int i = 0; i < s.T; ++i)
      for (int j = 0; j < s.T; ++j) weights[s.pair(u, i, j)] = run.o[wide.at(u, i, s.D + j)];
  return weights;
}

// The keys that random attention draws do not depend on the scores: equal ones show them.
inline Mask drawn_mask(const Sizes& s, const AttentionSettings& settings, Noise noise) {
  const Numbers zero(size_t(s.units() * s.T * s.D));
  AttentionSettings without_dropout = settings;
  without_dropout.dropout = 0;
  Mask mask;
  for (double w : attention_weights<double>(s, without_dropout, zero, zero, noise))
    mask.push_back(w != 0);
  return mask;
}

inline Numbers numbers_for(const Sizes& s, uint32_t which) {
  return random_numbers(size_t(s.units() * s.T * s.D), which);
}
inline Numbers quarters_for(const Sizes& s, uint32_t which) {
  return quarters(size_t(s.units() * s.T * s.D), which);
}

}  // namespace focus::test
