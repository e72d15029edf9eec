// The paper's model written down with the reference operations: tokens to logits, in double, with
// dropout in its five places. Slow, and plain enough to compare with the paper line by line.
#pragma once

#include <map>
#include <string>

#include "model/model.h"
#include "reference.h"

namespace focus::test {

class ReferenceModel {
 public:
  // Takes the model's weights. `noise` decides dropout: off means evaluation.
  template <class T>
  ReferenceModel(const Model<T>& model, Noise noise) : s_(model.settings()), noise_(noise) {
    for (const Parameter<T>& p : model.parameters())
      weights_[p.name] = Numbers(p.value.begin(), p.value.end());
  }

  // tokens (B,T) → logits (B,classes), or (B,T,classes) with the causal objective. Calls draw
  // dropout masks by site, in the order in which the uses come; the attention weights' masks have
  // the p of their own setting.
  Numbers logits(const std::vector<int>& tokens) {
    site_ = 0;
    const int T = s_.length, C = s_.d_model, HC = C * s_.attention.heads;
    const int B = int(tokens.size()) / T;
    Numbers x;
    for (int i = 0; i < B * T; ++i)
      for (int c = 0; c < C; ++c) {
        const double angle = i % T / std::pow(10000.0, double(c - c % 2) / C);
        x.push_back(std::sqrt(double(C)) *
                        weights_.at("embedding.weight")[size_t(tokens[size_t(i)] * C + c)] +
                    (c % 2 ? std::cos(angle) : std::sin(angle)));
      }
    drop(x);
    for (int block = 0; block < s_.blocks; ++block) {
      const std::string name = "encoder.transformer." + std::to_string(block);
      const Numbers normed = reference_layer_norm(
          x, C, block == 0 ? s_.first_layer_norm_epsilon : s_.layer_norm_epsilon);
      const Numbers q = apply(name + ".attention.W_q", normed, C, HC),
                    k = apply(name + ".attention.W_k", normed, C, HC),
                    v = apply(name + ".attention.W_v", normed, C, HC);
      const Sizes sizes{B, T, s_.attention.heads, C};
      const Mask mask = reference_mask(s_.attention, sizes, q, k);
      Mask keep;
      const double p = s_.attention.dropout;
      if (noise_.on && p > 0) keep = reference_weight_dropout(mask, noise_, site_++, p);
      const Numbers attended =
          reference_attention(sizes, q, k, v, mask, keep, 1 / (1 - p), {}, s_.attention.score_scale)
              .o;
      Numbers branch = apply(name + ".attention.W_o", attended, HC, C);
      drop(branch);
      add(x, branch);

      Numbers hidden =
          apply(name + ".ffn.0", reference_layer_norm(x, C, s_.layer_norm_epsilon), C, s_.d_mlp);
      drop(hidden);
      for (double& h : hidden) h = activation(h);
      branch = apply(name + ".ffn.3", hidden, s_.d_mlp, C);
      drop(branch);
      add(x, branch);
    }
    if (s_.objective == Objective::causal) return apply("linear", x, C, s_.classes);
    Numbers mean(size_t(B * C));
    for (int i = 0; i < B * T; ++i)
      for (int c = 0; c < C; ++c) mean[size_t(i / T * C + c)] += x[size_t(i * C + c)] / T;
    return apply("linear", mean, C, s_.classes);
  }

  uint32_t dropout_uses() const { return site_; }

 private:
  Numbers apply(const std::string& name, const Numbers& x, int in, int out) const {
    return reference_linear(x, weights_.at(name + ".weight"), weights_.at(name + ".bias"), in, out);
  }

  void drop(Numbers& x) {
    if (!noise_.on || s_.dropout == 0) return;
    for (size_t i = 0; i < x.size(); ++i)
      x[i] *= reference_keeps(noise_, site_, s_.dropout, i) ? 1 / (1 - s_.dropout) : 0;
    ++site_;
  }

  static void add(Numbers& x, const Numbers& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  double activation(double x) const {
    if (s_.activation == Activation::gelu) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    if (s_.activation == Activation::mish) return x * std::tanh(std::log1p(std::exp(x)));
    return std::max(x, 0.0);
  }

  ModelSettings s_;
  Noise noise_;
  uint32_t site_ = 0;
  std::map<std::string, Numbers> weights_;
};

}  // namespace focus::test
