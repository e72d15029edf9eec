#include "analysis/scores.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/kept_keys.h"
#include "tensor/simd.h"

namespace focus {

namespace {

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
  if (s.attention.causal) fail_input("scores are analysed without a causal mask only");
  Tape<T> tape(workers);
  HeadScores scores{0, 0, B, s.length, {}};
  scores.scores.resize(size_t(B) * size_t(s.length) * size_t(s.length));
  const auto visit_heads = [&](int block, const Tensor<T>&, const Tensor<T>& q,
                               const Tensor<T>& k) {
    for (int head = 0; head < s.attention.heads; ++head) {
      scores.block = block, scores.head = head;
      fill_scores(scores, q, k, s.attention);
      visit(scores);
    }
  };
  tape.reset(false);
  const Tensor<T> logits = model.visit_attention(tape, tokens, B, visit_heads);
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
  const int T = head.T;
  const KeptKeys keys(settings, T);
  KeptKeys::Scratch scratch;
  std::vector<double> kept, dropped;

  std::vector<QueryStatistics> all;
  all.reserve(size_t(head.B) * size_t(T));
  for (int b = 0; b < head.B; ++b)
    for (int i = 0; i < T; ++i) {
      const std::span<const double> row = head.row(b, i);
      const std::span<const int> own = keys.of(i, row, scratch);
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
