#include "train/evaluate.h"

#include <algorithm>

#include "ops/cross_entropy.h"

namespace focus {

std::optional<Evaluation> evaluate(Model<float>& model, Tape<float>& tape, const PaddedData& data,
                                   const std::atomic<bool>* stop, std::vector<float>* logits) {
  const int classes = model.settings().classes, length = data.length;
  const int batch = std::max(1, 4096 / length);  // rows at once: activations that fit the cache
  double loss = 0;
  int right = 0;
  std::vector<int> tokens;
  for (int first = 0; first < data.rows; first += batch) {
    if (stop && stop->load()) return std::nullopt;
    const int rows = std::min(batch, data.rows - first);
    const auto begin = data.tokens.begin() + ptrdiff_t{first} * length;
    tokens.assign(begin, begin + ptrdiff_t{rows} * length);
    tape.reset(false);
    const Tensor<float> out = model.forward(tape, tokens.data(), rows);
    //@ gap 06 evaluate-rows
    for (int b = 0; b < rows; ++b) {
      const float* row = out.data + ptrdiff_t{b} * classes;
      const int label = data.labels[size_t(first + b)];
      loss += row_cross_entropy(row, classes, label);
      right += std::max_element(row, row + classes) - row == label;
    }
    //@ end
    if (logits) logits->insert(logits->end(), out.data, out.data + out.size());
  }
  return Evaluation{loss / data.rows, 100.0 * right / data.rows};
}

}  // namespace focus
