// The paper's transformer (section 5 and appendix): an encoder that classifies a sequence.
//
//   x = dropout(embedding · √C + positions)
//   each block:  x = x + dropout(attention(norm(x)) W_o)        pre-norm, no affine parameters
//                x = x + dropout(W_2 activation(dropout(W_1 norm(x))))
//   logits = linear(mean over all tokens of x), or linear(x) with the causal objective
//
// Every head has the full width C, so W_q, W_k, W_v map C → heads·C and W_o maps back.
#pragma once

#include <deque>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "attention/pattern.h"
#include "ops/activation.h"
#include "tensor/tape.h"

namespace focus {

// What a model says about a sequence.
enum class Objective {
  classify,  // its class
  pooled,    // the token after it; computed as a class is
  causal,    // at each position the token after it, from the tokens up to there
};
// Names as on the command line, in checkpoints and tables. Unknown: InputError.
Objective objective_of(std::string_view name);
const char* name_of(Objective objective);

struct ModelSettings {
  AttentionSettings attention;  // pattern, k, global tokens, heads, dropout on the weights
  Activation activation = Activation::relu;
  int vocabulary = 0;  // PAD and global tokens included
  int classes = 0;
  int length = 0;  // tokens per sequence, padding and global tokens included
  int blocks = 5;
  int d_model = 64;
  int d_mlp = 64;
  double dropout = 0.01;
  double layer_norm_epsilon = 1e-5;
  double first_layer_norm_epsilon = 1e-5;  // of the first block's attention norm; the authors use 0
  Objective objective = Objective::classify;  // causal exactly where attention.causal is set

  // Labels of a sequence: one, or one for each position.
  int targets() const { return objective == Objective::causal ? length : 1; }
};

// Throws InputError naming the setting that is out of range.
void check_settings(const ModelSettings& settings);

template <class T>
class Model {
 public:
  // Parameters are zero until initialise() or a checkpoint fills them.
  explicit Model(const ModelSettings& settings);

  // Embedding and classifier weights uniform in ±0.1, classifier bias 0, all else uniform in
  // ±1/√fan_in. The p-th parameter draws from Rng(seed, Stream::init, p).
  void initialise(uint64_t seed);

  // tokens: (B, length) → logits (B, classes), or (B, length, classes) with the causal objective.
  Tensor<T> forward(Tape<T>& tape, const int* tokens, int B);
  // What the classifier reads: (B,C), or (B,length,C) with the causal objective. The logits of all
  // rows need not be there at once: ops/classifier_loss.h.
  Tensor<T> features(Tape<T>& tape, const int* tokens, int B);
  // The mean cross-entropy in nats; labels: (B,targets). `logits`, if given, receives forward()'s.
  Tensor<T> loss(Tape<T>& tape, const int* tokens, const int* labels, int B, T* logits = nullptr);
  // The same, and before each block what its attention compares: the normed input (B,length,C) and
  // its queries and keys (B,length,H·C), which are computed once more for it.
  using VisitAttention =
      std::function<void(int block, const Tensor<T>& x, const Tensor<T>& q, const Tensor<T>& k)>;
  Tensor<T> visit_attention(Tape<T>& tape, const int* tokens, int B, const VisitAttention& visit);

  const ModelSettings& settings() const { return settings_; }
  // In the order in which they act; the names are those of the authors' PyTorch model.
  std::deque<Parameter<T>>& parameters() { return parameters_; }
  const std::deque<Parameter<T>>& parameters() const { return parameters_; }
  // The classifier's weight (classes,C) and bias (classes).
  std::pair<Tensor<T>, Tensor<T>> classifier() {
    return {classifier_.weight->tensor(), classifier_.bias->tensor()};
  }
  // W_q and W_k of every block, and their biases.
  std::vector<Parameter<T>*> queries_and_keys();
  size_t parameter_count() const;
  // (length, C) sinusoidal positions; in checkpoints as pos_encoder.pe.
  std::span<const T> positions() const { return positions_; }
  void zero_gradients();

 private:
  struct Linear {
    Parameter<T>*weight, *bias;
  };
  struct Block {
    Linear q, k, v, o, mlp_in, mlp_out;
  };
  Linear add_linear(const std::string& name, int in, int out);
  Tensor<T> block_forward(Tape<T>& tape, const Tensor<T>& x, Block& block,
                          double attention_epsilon);
  Tensor<T> through_blocks(Tape<T>& tape, Tensor<T> x);
  Tensor<T> embed(Tape<T>& tape, const int* tokens, int B);
  Tensor<T> what_classifier_reads(Tape<T>& tape, const Tensor<T>& x);
  Tensor<T> classify(Tape<T>& tape, const Tensor<T>& x);

  ModelSettings settings_;
  std::deque<Parameter<T>> parameters_;  // a deque: tensors point into its elements
  Parameter<T>* embedding_;
  std::vector<Block> blocks_;
  Linear classifier_;
  std::vector<T> positions_;
};

}  // namespace focus
