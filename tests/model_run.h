// A small model with odd sizes, and a batch for it.
#pragma once

#include "close.h"
#include "train/cpu_stepper.h"

namespace focus::test {

inline ModelSettings small_model(Pattern pattern = Pattern::full, double dropout = 0) {
  ModelSettings s;
  s.attention = {pattern, 3, is_positional(pattern) ? 1 : 0, 2, dropout};
  s.vocabulary = 6, s.classes = 3, s.length = 7, s.blocks = 2, s.d_model = 5, s.d_mlp = 9;
  s.dropout = dropout;
  return s;
}

// Fills every weight, the biases too, with numbers large enough that each of them matters.
template <class T>
void fill_weights(Model<T>& model, uint32_t which = 1) {
  for (Parameter<T>& p : model.parameters()) {
    const std::vector<double> x = random_numbers(p.value.size(), which++);
    for (size_t i = 0; i < x.size(); ++i) p.value[i] = T(0.7 * x[i]);
  }
}

// A model that predicts the next token at every position.
inline ModelSettings causal_model(Pattern pattern, double dropout = 0) {
  ModelSettings s = small_model(pattern, dropout);
  s.attention.global_tokens = 0, s.attention.causal = true;
  s.objective = Objective::causal, s.classes = s.vocabulary = 11;
  return s;
}
constexpr Pattern causal_patterns[] = {Pattern::full, Pattern::banded, Pattern::topk};

struct Batch {
  std::vector<int> tokens, labels;
};

inline Batch random_batch(const ModelSettings& s, int B, uint32_t which = 1) {
  Rng rng(1618, Stream::analysis, which);
  Batch batch;
  for (int i = 0; i < B * s.length; ++i)
    batch.tokens.push_back(int(rng.below(uint32_t(s.vocabulary))));
  for (int b = 0; b < B * s.targets(); ++b)
    batch.labels.push_back(int(rng.below(uint32_t(s.classes))));
  return batch;
}

constexpr Pattern all_patterns[] = {Pattern::full, Pattern::banded,  Pattern::block,
                                    Pattern::topk, Pattern::bottomk, Pattern::random};

// A model in training, one batch.
template <class T>
struct Training {
  Model<T> model;
  Optimizer<T> optimizer;
  Workers workers;
  Tape<T> tape{workers};
  Batch batch;
  uint32_t steps = 0;

  Training(const ModelSettings& s, OptimizerKind kind, int threads, int B = 5)
      : model(s), optimizer(kind, model.parameters()), workers(threads), batch(random_batch(s, B)) {
    model.initialise(3);
  }

  double step(double lr) {
    const Noise noise{.on = true, .seed = 7, .step = steps++};
    return double(train_step(model, optimizer, tape, batch.tokens.data(), batch.labels.data(),
                             int(batch.tokens.size()) / model.settings().length, noise, lr, 0.5)
                      .loss);
  }
};

// Larger than the pieces that operations are cut into.
inline ModelSettings medium_model(Pattern pattern, double dropout) {
  ModelSettings s = small_model(pattern, dropout);
  s.length = 23, s.d_model = 20, s.d_mlp = 33;
  return s;
}

}  // namespace focus::test
