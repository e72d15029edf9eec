// A model's forward, layer by layer, for whoever wants to look into its attention on the way.
#pragma once

#include <deque>

#include "model/model.h"
#include "ops/embedding.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "ops/mean_tokens.h"

namespace focus {

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

// The forward on tokens (B,length), without dropout. `attend(block, normed, q, k, v)` returns what
// comes out of a block's attention, before W_o: normed (B,T,C) is what it reads, q, k, v (B,T,H·D).
// Returns the logits (B,classes), which live as long as the tape's pass.
template <class T, class Attend>
Tensor<T> walk(Model<T>& model, Tape<T>& tape, const int* tokens, int B, const Attend& attend) {
  const ModelSettings& s = model.settings();
  if (s.objective == Objective::causal)
    fail_input("what attention compares is analysed without a causal mask only");
  tape.reset(false);
  Layers<T> layers{tape, model.parameters()};
  const Tensor<T> positions{
      {s.length, s.d_model}, const_cast<T*>(model.positions().data()), nullptr};
  Tensor<T> x = embedding(tape, tokens, B, layers.take(), positions);
  for (int block = 0; block < s.blocks; ++block) {
    const Tensor<T> normed =
        layer_norm(tape, x, block == 0 ? s.first_layer_norm_epsilon : s.layer_norm_epsilon);
    const Tensor<T> q = layers.apply_linear(normed), k = layers.apply_linear(normed),
                    v = layers.apply_linear(normed);
    x = add(tape, x, layers.apply_linear(attend(block, normed, q, k, v)));
    const Tensor<T> hidden = layers.apply_linear(layer_norm(tape, x, s.layer_norm_epsilon));
    x = add(tape, x, layers.apply_linear(activate(tape, hidden, s.activation)));
  }
  return layers.apply_linear(mean_tokens(tape, x));
}

}  // namespace focus
