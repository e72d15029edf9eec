#include "model/model.h"

#include <algorithm>
#include <cmath>

#include "attention/attention.h"
#include "ops/dropout.h"
#include "ops/embedding.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "ops/mean_tokens.h"
#include "rng.h"

namespace focus {

void check_settings(const ModelSettings& s) {
  const auto in_range = [](const char* name, int value, int low, int high) {
    if (value < low || value > high)
      fail_input(name, " ", value, " is not between ", low, " and ", high);
  };
  // Generous bounds: they keep sizes far from integer overflow, not users from experiments.
  in_range("length", s.length, 1, 16384);
  in_range("vocabulary", s.vocabulary, 1, 1 << 20);
  in_range("classes", s.classes, 1, 1 << 20);
  in_range("blocks", s.blocks, 1, 1000);
  in_range("heads", s.attention.heads, 1, 256);
  in_range("d-model", s.d_model, 1, 4096);
  in_range("d-mlp", s.d_mlp, 1, 16384);
  check_settings(s.attention, s.length);
  if (!(s.dropout >= 0 && s.dropout < 1)) fail_input("dropout ", s.dropout, " is not in [0, 1)");
  if (!(s.layer_norm_epsilon >= 0 && s.layer_norm_epsilon <= 1))
    fail_input("layer-norm epsilon ", s.layer_norm_epsilon, " is not between 0 and 1");
  if (!(s.first_layer_norm_epsilon >= 0 && s.first_layer_norm_epsilon <= 1))
    fail_input("first layer-norm epsilon ", s.first_layer_norm_epsilon, " is not between 0 and 1");
}

template <class T>
typename Model<T>::Linear Model<T>::add_linear(const std::string& name, int in, int out) {
  Parameter<T>& weight = parameters_.emplace_back(name + ".weight", Shape{out, in});
  Parameter<T>& bias = parameters_.emplace_back(name + ".bias", Shape{out});
  return {&weight, &bias};
}

template <class T>
Model<T>::Model(const ModelSettings& settings) : settings_(settings) {
  check_settings(settings);
  const int C = settings.d_model, HC = settings.attention.heads * C, F = settings.d_mlp;
  embedding_ = &parameters_.emplace_back("embedding.weight", Shape{settings.vocabulary, C});
  for (int i = 0; i < settings.blocks; ++i) {
    //@ begin 11 block-parameters points=6
    //@ plan Six linear layers of block i, in the order in which they act, each by add_linear(name,
    //@ plan in, out); then append the Block to blocks_. The names are "encoder.transformer.i"
    //@ plan followed by ".attention.W_q", ".attention.W_k", ".attention.W_v", ".attention.W_o",
    //@ plan ".ffn.0" and ".ffn.3". C is the width, HC all heads' widths together, F the MLP's.
    //@ hint 1 A head has the full width C. How many numbers come out of W_q for one token, then,
    //@ hint 1 and how many go into W_o?
    //@ hint 2 README, "Heads": the shapes are in the table. std::to_string(i) makes the name.
    //@ hint 3 name = "encoder.transformer." followed by i
    //@ hint 3 q, k, v: from C to HC; o: from HC back to C
    //@ hint 3 mlp_in: from C to F; mlp_out: from F back to C
    //@ hint 3 append the block to blocks_
    //@ notice The names are all that ties a checkpoint to the model: the authors' program reads
    //@ notice yours because block 3 is called 3 on both sides.
    //@ mutant block-names-shared: every block has the name of block 0
    //~ const std::string block = "encoder.transformer.0";
    const std::string block = "encoder.transformer." + std::to_string(i);
    Block b{};
    //@ mutant(4) heads-narrow: the heads share the width instead of having it each
    //~ b.q = add_linear(block + ".attention.W_q", C, C);
    //~ b.k = add_linear(block + ".attention.W_k", C, C);
    //~ b.v = add_linear(block + ".attention.W_v", C, C);
    //~ b.o = add_linear(block + ".attention.W_o", C, C);
    b.q = add_linear(block + ".attention.W_q", C, HC);
    b.k = add_linear(block + ".attention.W_k", C, HC);
    b.v = add_linear(block + ".attention.W_v", C, HC);
    b.o = add_linear(block + ".attention.W_o", HC, C);
    b.mlp_in = add_linear(block + ".ffn.0", C, F);
    b.mlp_out = add_linear(block + ".ffn.3", F, C);
    //@ mutant blocks-not-kept: the layers are made, but no block is kept
    blocks_.push_back(b);
    //@ end
  }
  classifier_ = add_linear("linear", C, settings.classes);
  positions_.resize(size_t(settings.length) * size_t(C));
  fill_positions(positions_.data(), settings.length, C);
}

template <class T>
void Model<T>::initialise(uint64_t seed) {
  //@ begin 11 initial-weights points=5
  //@ plan Every parameter p of parameters_ is uniform in ±bound, from its own random numbers
  //@ plan Rng(seed, Stream::init, p): 2 * rng.uniform() - 1 is uniform in ±1.
  //@ plan 1. A weight (shape of rank 2: [out, in]) has the fan-in shape.last(); the bias that
  //@ plan    follows it shares it. The bound is 1/√fan_in.
  //@ plan 2. Embedding and classifier_.weight: 0.1; classifier_.bias: 0.
  //@ hint 1 W_o reads four times as many numbers with four heads as with one. What would happen to
  //@ hint 1 the size of its output, were the bound the same?
  //@ hint 2 README, "Why 1/√fan-in". `&parameter == classifier_.bias` asks which one it is; a bias
  //@ hint 2 has rank 1, so the last weight's fan-in must be remembered.
  //@ hint 3 fan_in = 1
  //@ hint 3 for p from 0 to the last parameter:
  //@ hint 3   if the shape's rank is 2: fan_in = shape.last()
  //@ hint 3   bound = one over the square root of fan_in
  //@ hint 3   bound = 0.1 for embedding_ and classifier_.weight, 0 for classifier_.bias
  //@ hint 3   rng = Rng(seed, Stream::init, p)
  //@ hint 3   every number of the parameter = (2 times rng.uniform() minus 1) times bound
  //@ notice A parameter's numbers follow from (seed, p) alone. So a model with more blocks starts
  //@ notice from the same numbers in its first blocks, and only the classifier draws others.
  double fan_in = 1;  // a bias follows its weight and shares its fan-in
  for (size_t p = 0; p < parameters_.size(); ++p) {
    Parameter<T>& parameter = parameters_[p];
    //@ mutant init-fan-out: the bound counts the numbers that come out, not those that go in
    //~ if (parameter.shape.rank() == 2) fan_in = parameter.shape[0];
    //@ mutant init-bias-own-size: a bias is bounded by its own length
    //~ fan_in = parameter.shape.last();
    if (parameter.shape.rank() == 2) fan_in = parameter.shape.last();
    double bound = 1 / std::sqrt(fan_in);
    if (&parameter == embedding_ || &parameter == classifier_.weight) bound = 0.1;
    if (&parameter == classifier_.bias) bound = 0;
    //@ mutant init-one-stream: all parameters draw the same random numbers
    //~ Rng rng(seed, Stream::init, 0);
    Rng rng(seed, Stream::init, uint32_t(p));
    for (T& w : parameter.value) w = T((2 * rng.uniform() - 1) * bound);
  }
  //@ end
}

template <class T>
Tensor<T> Model<T>::block_forward(Tape<T>& tape, const Tensor<T>& x, Block& block,
                                  double attention_epsilon) {
  const auto apply = [&](const Linear& layer, const Tensor<T>& input) {
    return linear(tape, input, layer.weight->tensor(), layer.bias->tensor());
  };
  const double p = settings_.dropout;

  //@ begin 03 block points=7
  //@ plan 1. Attention reads layer_norm(tape, x, attention_epsilon): attention(tape, q, k, v,
  //@ plan    settings_.attention), with q, k, v = apply(block.q, ...), apply(block.k, ...), ...
  //@ plan 2. x plus dropout of apply(block.o, attended): add_dropout(tape, x, branch, p).
  //@ plan 3. The second half reads that sum through a norm of its own
  //@ plan    (settings_.layer_norm_epsilon): block.mlp_in, dropout, activate(tape, ...,
  //@ plan    settings_.activation), block.mlp_out; add again.
  //@ hint 1 Suppose that all weights of block.o and block.mlp_out are zero. What must the block
  //@ hint 1 return? To what, then, does each of the two halves add?
  //@ hint 2 README, the table: from "norm" to "second residual". dropout(tape, x, p) and
  //@ hint 2 add_dropout(tape, x, branch, p) are in src/ops/dropout.h.
  //@ hint 3 normed = layer_norm of x with attention_epsilon
  //@ hint 3 attended = attention of block.q, block.k and block.v applied to normed
  //@ hint 3 middle = add_dropout: x plus block.o applied to attended, with p
  //@ hint 3 second = layer_norm of middle with settings_.layer_norm_epsilon
  //@ hint 3 hidden = block.mlp_in applied to second
  //@ hint 3 active = activate of (dropout of hidden with p), with settings_.activation
  //@ hint 3 return add_dropout: middle plus block.mlp_out applied to active, with p
  //@ notice You wrote no backward: the tape recorded every step, and x is used twice, by the norm
  //@ notice and by the sum. Lesson 02's "add, do not set" is what makes the residual's gradient
  //@ notice right.
  //@ mutant block-no-norm: attention reads x as it is
  //~ const Tensor<T> normed = x;
  const Tensor<T> normed = layer_norm(tape, x, attention_epsilon);
  const Tensor<T> attended = attention(tape, apply(block.q, normed), apply(block.k, normed),
                                       apply(block.v, normed), settings_.attention);
  //@ mutant block-no-residual: attention replaces x where it should be added
  //~ const Tensor<T> middle = dropout(tape, apply(block.o, attended), p);
  //@ mutant block-norm-after: the residual starts from the norm, so x itself is lost
  //~ const Tensor<T> middle = add_dropout(tape, normed, apply(block.o, attended), p);
  const Tensor<T> middle = add_dropout(tape, x, apply(block.o, attended), p);

  //@ mutant(2) block-mlp-no-norm: the second half reads its input without a norm
  //~ const Tensor<T> hidden = apply(block.mlp_in, middle);
  const Tensor<T> hidden =
      apply(block.mlp_in, layer_norm(tape, middle, settings_.layer_norm_epsilon));
  const Tensor<T> active = activate(tape, dropout(tape, hidden, p), settings_.activation);
  //@ mutant block-residual-of-x: the second half adds to x and loses the first
  //~ return add_dropout(tape, x, apply(block.mlp_out, active), p);
  return add_dropout(tape, middle, apply(block.mlp_out, active), p);
  //@ end
}

template <class T>
Tensor<T> Model<T>::through_blocks(Tape<T>& tape, Tensor<T> x) {
  //@ begin 11 through-the-blocks points=4
  //@ plan x goes through all of blocks_ in order, each by block_forward(tape, x, block, epsilon).
  //@ plan epsilon is settings_.first_layer_norm_epsilon for the first block and
  //@ plan settings_.layer_norm_epsilon for the others.
  //@ hint 1 What does the second block read: the embedding, or what the first block returned?
  //@ hint 2 README, "Depth": the line with x on both sides.
  //@ hint 3 for i from 0 to the last block:
  //@ hint 3   epsilon = the first one if i is 0, else the other
  //@ hint 3   x = block_forward of x through block number i
  //@ notice The first block alone has an ε of its own, because the authors' program has 0 there.
  //@ notice And the depth stands in no formula: it is how often this loop turns.
  //@ mutant(2) blocks-same-weights: every turn uses the first block's weights
  //~ for (size_t i = 0; i < blocks_.size(); ++i)
  //~   x = block_forward(tape, x, blocks_[0],
  //@ mutant blocks-last-left-out: the last block is left out
  //~ for (size_t i = 0; i + 1 < blocks_.size(); ++i)
  //@ mutant blocks-backwards: from the last block to the first
  //~ for (size_t i = blocks_.size(); i-- > 0;)
  for (size_t i = 0; i < blocks_.size(); ++i)
    x = block_forward(tape, x, blocks_[i],
                      //@ mutant epsilon-of-the-first: every block has the first one's epsilon
                      //~ settings_.first_layer_norm_epsilon);
                      i == 0 ? settings_.first_layer_norm_epsilon : settings_.layer_norm_epsilon);
  //@ end
  return x;
}

template <class T>
Tensor<T> Model<T>::forward(Tape<T>& tape, const int* tokens, int B) {
  const Tensor<T> positions{{settings_.length, settings_.d_model},
                            positions_.data(),
                            nullptr};
  const Tensor<T> x =
      dropout(tape, embedding(tape, tokens, B, embedding_->tensor(), positions), settings_.dropout);
  return linear(tape, mean_tokens(tape, through_blocks(tape, x)), classifier_.weight->tensor(),
                classifier_.bias->tensor());
}

template <class T>
size_t Model<T>::parameter_count() const {
  size_t count = 0;
  for (const Parameter<T>& p : parameters_) count += p.value.size();
  return count;
}

template <class T>
void Model<T>::zero_gradients() {
  for (Parameter<T>& p : parameters_)
    std::fill(p.gradient_value.begin(), p.gradient_value.end(), T(0));
}

template class Model<float>;
template class Model<double>;

}  // namespace focus
