#include "analysis/scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "analysis/largest.h"
#include "attention/attention.h"
#include "ops/embedding.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "ops/mean_tokens.h"
#include "tensor/simd.h"

namespace focus {

namespace {

// The model's layers in the order in which they act, taken one after the other. In evaluation
// dropout does nothing, so the model's forward is only these operations (model.h).
template <class T>
struct Layers {
  Tape<T>& tape;
  std::deque<Parameter<T>>& parameters;
  size_t next = 0;

  Tensor<T> take() { return parameters[next++].tensor(); }
  Tensor<T> apply_linear(const Tensor<T>& x) {
    const Tensor<T> weight = take(), bias = take();
    return linear(tape, x, weight, bias);
  }
};

template <class T>
Tensor<T> add(Tape<T>& tape, const Tensor<T>& a, const Tensor<T>& b) {
  const Tensor<T> sum = tape.make(a.shape);
  for (size_t i = 0; i < a.size(); ++i) sum.data[i] = a.data[i] + b.data[i];
  return sum;
}

// q, k: (B,T,H·D).
template <class T>
void fill_scores(HeadScores& head, const Tensor<T>& q, const Tensor<T>& k,
                 const AttentionSettings& settings) {
  const size_t HD = size_t(q.channels()), D = HD / size_t(settings.heads), N = size_t(head.T);
  const double scale = settings.score_scale / std::sqrt(double(D));
  std::vector<double> q_row(D), k_rows(N * D);
  for (size_t b = 0; b < size_t(head.B); ++b) {
    const size_t offset = b * N * HD + size_t(head.head) * D;
    for (size_t j = 0; j < N; ++j)
      std::copy_n(k.data + offset + j * HD, D, k_rows.begin() + ptrdiff_t(j * D));
    for (size_t i = 0; i < N; ++i) {
      std::copy_n(q.data + offset + i * HD, D, q_row.begin());
      for (size_t j = 0; j < N; ++j)
        head.scores[(b * N + i) * N + j] = scale * dot(q_row.data(), k_rows.data() + j * D, int(D));
    }
  }
}

}  // namespace

template <class T>
std::vector<T> visit_attention_scores(Model<T>& model, const int* tokens, int B, Workers& workers,
                                      const std::function<void(const HeadScores&)>& visit) {
  const ModelSettings& s = model.settings();
  Tape<T> tape(workers);
  tape.reset(false);
  Layers<T> layers{tape, model.parameters()};
  const Tensor<T> positions{
      {s.length, s.d_model}, const_cast<T*>(model.positions().data()), nullptr};
  HeadScores scores{0, 0, B, s.length, {}};
  scores.scores.resize(size_t(B) * size_t(s.length) * size_t(s.length));

  Tensor<T> x = embedding(tape, tokens, B, layers.take(), positions);
  for (int block = 0; block < s.blocks; ++block) {
    const Tensor<T> normed =
        layer_norm(tape, x, block == 0 ? s.first_layer_norm_epsilon : s.layer_norm_epsilon);
    const Tensor<T> q = layers.apply_linear(normed), k = layers.apply_linear(normed),
                    v = layers.apply_linear(normed);
    for (int head = 0; head < s.attention.heads; ++head) {
      scores.block = block, scores.head = head;
      fill_scores(scores, q, k, s.attention);
      visit(scores);
    }
    x = add(tape, x, layers.apply_linear(attention(tape, q, k, v, s.attention)));
    const Tensor<T> hidden = layers.apply_linear(layer_norm(tape, x, s.layer_norm_epsilon));
    x = add(tape, x, layers.apply_linear(activate(tape, hidden, s.activation)));
  }
  const Tensor<T> logits = layers.apply_linear(mean_tokens(tape, x));
  return std::vector<T>(logits.data, logits.data + logits.size());
}

template <class T>
std::vector<HeadScores> attention_scores(Model<T>& model, const int* tokens, int B,
                                         Workers& workers) {
  std::vector<HeadScores> all;
  visit_attention_scores<T>(model, tokens, B, workers,
                            [&](const HeadScores& head) { all.push_back(head); });
  return all;
}

std::vector<QueryStatistics> query_statistics(const HeadScores& head,
                                              const AttentionSettings& settings) {
  check_settings(settings, head.T);
  if (settings.pattern == Pattern::random)
    fail_input("query statistics: the random pattern keeps other keys at each call");
  const int T = head.T;
  const size_t N = size_t(T);
  const bool by_position = is_positional(settings.pattern);
  std::vector<int> begin(N + 1), keys;
  if (by_position) {
    keys.resize(size_t(count_nnz(settings, T)));
    fill_key_lists(settings, T, begin.data(), keys.data());
  } else {  // full attention; top-k replaces them row by row
    keys.resize(N);
    std::iota(keys.begin(), keys.end(), 0);
  }
  std::vector<double> signed_row(N), kept, dropped;

  std::vector<QueryStatistics> all;
  all.reserve(size_t(head.B) * size_t(T));
  for (int b = 0; b < head.B; ++b)
    for (int i = 0; i < T; ++i) {
      const std::span<const double> row = head.row(b, i);
      if (settings.pattern == Pattern::topk || settings.pattern == Pattern::bottomk) {
        // The k smallest are the k largest of the negated scores.
        const double sign = settings.pattern == Pattern::bottomk ? -1 : 1;
        for (size_t j = 0; j < N; ++j) signed_row[j] = sign * row[j];
        keys = largest_keys(signed_row, settings.k);
      }
      std::span<const int> own = keys;
      if (by_position) own = {keys.data() + begin[size_t(i)], keys.data() + begin[size_t(i) + 1]};
      kept.clear(), dropped.clear();
      size_t next = 0;  // the kept keys ascend
      for (int j = 0; j < T; ++j) {
        const bool is_kept = next < own.size() && own[next] == j;
        (is_kept ? kept : dropped).push_back(row[size_t(j)]);
        next += is_kept;
      }
      const double separation = dropped.empty()
                                    ? std::numeric_limits<double>::quiet_NaN()
                                    : *std::min_element(kept.begin(), kept.end()) -
                                          *std::max_element(dropped.begin(), dropped.end());
      all.push_back({dispersion(row), dispersion(kept), separation, softmax_sensitivity(kept),
                     softmax_entropy(kept)});
    }
  return all;
}

#define FOCUS_INSTANTIATE(T)                                                                     \
  template std::vector<T> visit_attention_scores(Model<T>&, const int*, int, Workers&,           \
                                                 const std::function<void(const HeadScores&)>&); \
  template std::vector<HeadScores> attention_scores(Model<T>&, const int*, int, Workers&);
FOCUS_INSTANTIATE(float)
FOCUS_INSTANTIATE(double)
#undef FOCUS_INSTANTIATE

}  // namespace focus
