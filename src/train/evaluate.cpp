#include "train/evaluate.h"

#include <algorithm>

#include "ops/classifier_loss.h"
#include "ops/cross_entropy.h"

namespace focus {

std::optional<Evaluation> evaluate(Model<float>& model, Tape<float>& tape, const PaddedData& data,
                                   const std::atomic<bool>* stop, std::vector<float>* logits) {
  const int classes = model.settings().classes, length = data.length;
  // Rows at once: a thread's share of their activations fits its cache. Random attention draws a
  // row's keys by its place in the batch, which must not depend on the number of threads.
  const bool draws = model.settings().attention.pattern == Pattern::random;
  const int batch = std::max(1, (draws ? 4096 : 512 * tape.workers().threads()) / length);
  double loss = 0;
  int64_t right = 0;
  const int targets = model.settings().targets();
  std::vector<int> tokens, labels;
  for (int first = 0; first < data.rows; first += batch) {
    if (stop && stop->load()) return std::nullopt;
    const int rows = std::min(batch, data.rows - first);
    tokens.clear(), labels.clear();
    for (int row = first; row < first + rows; ++row) append_row(data, row, targets, tokens, labels);
    tape.reset(false);
    const Tensor<float> x = model.features(tape, tokens.data(), rows);
    const auto [weight, bias] = model.classifier();
    for_logits(tape, x, weight, bias, [&](int begin, int count, const float* out) {
      //@ gap 06 evaluate-rows
      for (int p = 0; p < count; ++p) {
        const float* row = out + ptrdiff_t{p} * classes;
        const int label = labels[size_t(begin + p)];
        loss += row_cross_entropy(row, classes, label);
        right += std::max_element(row, row + classes) - row == label;
      }
      //@ end
      if (logits) logits->insert(logits->end(), out, out + ptrdiff_t{count} * classes);
    });
  }
  const double count = double(data.rows) * targets;
  return Evaluation{loss / count, 100.0 * double(right) / count};
}

}  // namespace focus
