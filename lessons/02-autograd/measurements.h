// What lesson 02 measures: a one-block model's gradient and its softmax's sensitivity.
#pragma once

#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "analysis/sensitivity.h"
#include "one_block.h"
#include "report/statistics.h"
#include "rng.h"
#include "tensor/gradient_check.h"
#include "tensor/softmax.h"

namespace focus {

inline constexpr int length = 40, k = 5;

// Before anything is measured: are the gradients right? All of a small model, in double.
inline std::string check_the_gradients() {
  OneBlock<double> model(full, k, 6, 8, 1);
  const Batch batch = even_pairs(4, 6, 1);
  std::vector<Parameter<double>*> inputs;
  for (Parameter<double>& p : model.parameters) inputs.push_back(&p);
  const std::function<Tensor<double>(Tape<double>&)> loss = [&](Tape<double>& tape) {
    return model.loss(tape, batch);
  };
  const GradientReport report = check_gradients(loss, inputs);
  if (!report.ok) fail_run(report.text);
  return report.text;
}

struct Point {
  double dispersion, kept_dispersion;  // medians over all queries: of all scores, of the kept ones
  double sensitivity;                  // mean over all queries of max_j 2 p_j (1 - p_j)
  double dense_gain;  // mean of ‖J(p) g‖₁ / ‖g‖₁ over all queries, full attention
  double loss;
  double gradient;   // ‖∂L/∂(W_q, W_k)‖₂
  double per_scale;  // the same without the factor √c that the chain rule puts in (README)
  double largest;  // mean over all queries of the largest that any loss can send; without √c too
};

// ‖J(p) g‖₁ / ‖g‖₁ for a row of scores, where every entry of g is 1 or -1: lesson 01's sensitivity
// is the largest that any g can make of this, and takes a g with one entry.
inline double dense_gain(std::span<const double> scores, Rng& rng) {
  const int n = int(scores.size());
  std::vector<double> p(scores.begin(), scores.end()), g(p.size());
  softmax_row(p.data(), p.data(), n, 1.0);
  for (double& x : g) x = rng.below(2) == 0 ? -1 : 1;
  softmax_row_backward(g.data(), g.data(), p.data(), n, 1.0);
  double sum = 0;
  for (double x : g) sum += std::abs(x);
  return sum / n;
}

// The largest ‖∂L/∂(W_q, W_k)‖₂ that a loss with ‖dP_i‖₁ ≤ 1 can send through query i of a sequence
// (README, "The largest gradient"). x, q, k: the sequence's rows, (T,D).
inline double largest_gradient(const Query& query, int i, const float* x, const float* q,
                               const float* k, int D) {
  const auto squared_distance = [D](const float* row, const Row& from) {
    double sum = 0;
    for (int c = 0; c < D; ++c) {
      const double difference = double(row[c]) - from[size_t(c)];
      sum += difference * difference;
    }
    return sum;
  };
  const Row zero(size_t(D), 0.0);
  Row mean_x = zero, mean_k = zero;  // Σ_j p_ij x_j, Σ_j p_ij k_j
  for (int j : query.kept)
    for (int c = 0; c < D; ++c) {
      mean_x[size_t(c)] += query.weights[size_t(j)] * double(x[ptrdiff_t{j} * D + c]);
      mean_k[size_t(c)] += query.weights[size_t(j)] * double(k[ptrdiff_t{j} * D + c]);
    }
  const double x_i = squared_distance(x + ptrdiff_t{i} * D, zero),
               q_i = squared_distance(q + ptrdiff_t{i} * D, zero);
  double largest = 0;
  for (int j : query.kept) {
    const double squared = x_i * squared_distance(k + ptrdiff_t{j} * D, mean_k) +
                           q_i * squared_distance(x + ptrdiff_t{j} * D, mean_x);
    largest = std::max(largest, query.weights[size_t(j)] * std::sqrt(squared / D));
  }
  return largest;
}

// The model with its scores multiplied by c: W_q, W_k and their biases by √c each.
inline Point measure(Mechanism mechanism, double c, uint64_t seed, const Batch& batch,
                     Workers& workers) {
  OneBlock<float> model(mechanism, k, length, 64, seed);
  std::vector<Parameter<float>*> query_key_weights;
  for (Parameter<float>& p : model.parameters)
    for (const char* name : {"W_q.", "W_k."})
      if (p.name.starts_with(name)) {
        for (float& w : p.value) w *= float(std::sqrt(c));
        if (p.shape.rank() == 2) query_key_weights.push_back(&p);
      }

  Tape<float> tape(workers);
  tape.reset(true);
  const Tensor<float> loss = model.loss(tape, batch);
  Point point{};
  point.loss = double(loss.data[0]);
  tape.backward(loss);
  for (const Parameter<float>* p : query_key_weights)
    for (float g : p->gradient_value) point.gradient += double(g) * double(g);
  point.gradient = std::sqrt(point.gradient);
  point.per_scale = point.gradient / std::sqrt(c);

  std::vector<double> all, kept, sensitivity, gain, largest;
  Rng rng(seed, Stream::analysis);
  for (const Query& query : model.queries) {
    const Row kept_ones = kept_scores(query.scores, query.kept);
    all.push_back(dispersion(query.scores)), kept.push_back(dispersion(kept_ones));
    sensitivity.push_back(softmax_sensitivity(kept_ones));
    gain.push_back(dense_gain(query.scores, rng));
    const ptrdiff_t row = ptrdiff_t(largest.size()), i = row % length;
    const ptrdiff_t sequence = (row - i) * model.q.channels();
    largest.push_back(largest_gradient(query, int(i), model.normed.data + sequence,
                                       model.q.data + sequence, model.k.data + sequence,
                                       model.q.channels()));
  }
  point.dispersion = median(all);
  point.kept_dispersion = median(kept);
  point.sensitivity = mean(sensitivity);
  point.dense_gain = mean(gain);
  point.largest = mean(largest) / std::sqrt(c);
  return point;
}

// Spearman's rank correlation: 1 if the two always rise together, -1 if one falls where the other
// rises. For values without ties.
inline double rank_correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const double n = double(x.size());
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    double difference = 0;  // of the ranks of point i
    for (size_t j = 0; j < x.size(); ++j) difference += (x[j] < x[i]) - (y[j] < y[i]);
    sum += difference * difference;
  }
  return 1 - 6 * sum / (n * (n * n - 1));
}

}  // namespace focus
