#include "model/model.h"

#include <algorithm>
#include <cmath>

#include "attention/attention.h"
#include "enum_names.h"
#include "ops/classifier_loss.h"
#include "ops/dropout.h"
#include "ops/embedding.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "ops/mean_tokens.h"
#include "rng.h"

namespace focus {

namespace {
constexpr const char* objective_names[] = {"classify", "pooled", "causal"};
}

Objective objective_of(std::string_view name) {
  return value_named<Objective>(name, objective_names, "objective");
}

const char* name_of(Objective objective) {
  return name_among(objective_names, objective);
}

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
  if (s.attention.causal != (s.objective == Objective::causal))
    fail_input("objective ", name_of(s.objective), " with attention that is ",
               s.attention.causal ? "" : "not ", "causal");
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
    //@ gap 11 block-parameters
    const std::string block = "encoder.transformer." + std::to_string(i);
    Block b{};
    b.q = add_linear(block + ".attention.W_q", C, HC);
    b.k = add_linear(block + ".attention.W_k", C, HC);
    b.v = add_linear(block + ".attention.W_v", C, HC);
    b.o = add_linear(block + ".attention.W_o", HC, C);
    b.mlp_in = add_linear(block + ".ffn.0", C, F);
    b.mlp_out = add_linear(block + ".ffn.3", F, C);
    blocks_.push_back(b);
    //@ end
  }
  classifier_ = add_linear("linear", C, settings.classes);
  positions_.resize(size_t(settings.length) * size_t(C));
  fill_positions(positions_.data(), settings.length, C);
}

template <class T>
void Model<T>::initialise(uint64_t seed) {
  //@ gap 11 initial-weights
  double fan_in = 1;  // a bias follows its weight and shares its fan-in
  for (size_t p = 0; p < parameters_.size(); ++p) {
    Parameter<T>& parameter = parameters_[p];
    if (parameter.shape.rank() == 2) fan_in = parameter.shape.last();
    double bound = 1 / std::sqrt(fan_in);
    if (&parameter == embedding_ || &parameter == classifier_.weight) bound = 0.1;
    if (&parameter == classifier_.bias) bound = 0;
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

  //@ gap 03 block
  const Tensor<T> normed = layer_norm(tape, x, attention_epsilon);
  const Tensor<T> attended = attention(tape, apply(block.q, normed), apply(block.k, normed),
                                       apply(block.v, normed), settings_.attention);
  const Tensor<T> middle = add_dropout(tape, x, apply(block.o, attended), p);

  const Tensor<T> hidden =
      apply(block.mlp_in, layer_norm(tape, middle, settings_.layer_norm_epsilon));
  const Tensor<T> active = activate(tape, dropout(tape, hidden, p), settings_.activation);
  return add_dropout(tape, middle, apply(block.mlp_out, active), p);
  //@ end
}

template <class T>
Tensor<T> Model<T>::through_blocks(Tape<T>& tape, Tensor<T> x) {
  //@ gap 11 through-the-blocks
  for (size_t i = 0; i < blocks_.size(); ++i)
    x = block_forward(tape, x, blocks_[i],
                      i == 0 ? settings_.first_layer_norm_epsilon : settings_.layer_norm_epsilon);
  //@ end
  return x;
}

template <class T>
Tensor<T> Model<T>::embed(Tape<T>& tape, const int* tokens, int B) {
  const Tensor<T> positions{{settings_.length, settings_.d_model}, positions_.data(), nullptr};
  return dropout(tape, embedding(tape, tokens, B, embedding_->tensor(), positions),
                 settings_.dropout);
}

template <class T>
Tensor<T> Model<T>::what_classifier_reads(Tape<T>& tape, const Tensor<T>& x) {
  return settings_.objective == Objective::causal ? x : mean_tokens(tape, x);
}

template <class T>
Tensor<T> Model<T>::classify(Tape<T>& tape, const Tensor<T>& x) {
  const auto [weight, bias] = classifier();
  return linear(tape, what_classifier_reads(tape, x), weight, bias);
}

template <class T>
Tensor<T> Model<T>::forward(Tape<T>& tape, const int* tokens, int B) {
  return classify(tape, through_blocks(tape, embed(tape, tokens, B)));
}

template <class T>
Tensor<T> Model<T>::features(Tape<T>& tape, const int* tokens, int B) {
  return what_classifier_reads(tape, through_blocks(tape, embed(tape, tokens, B)));
}

template <class T>
Tensor<T> Model<T>::loss(Tape<T>& tape, const int* tokens, const int* labels, int B, T* logits) {
  const auto [weight, bias] = classifier();
  return classifier_loss(tape, features(tape, tokens, B), weight, bias, labels, logits);
}

template <class T>
Tensor<T> Model<T>::visit_attention(Tape<T>& tape, const int* tokens, int B,
                                    const VisitAttention& visit) {
  Tensor<T> x = embed(tape, tokens, B);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    Block& b = blocks_[i];
    const double epsilon =
        i == 0 ? settings_.first_layer_norm_epsilon : settings_.layer_norm_epsilon;
    const Tensor<T> normed = layer_norm(tape, x, epsilon);
    visit(int(i), normed, linear(tape, normed, b.q.weight->tensor(), b.q.bias->tensor()),
          linear(tape, normed, b.k.weight->tensor(), b.k.bias->tensor()));
    x = block_forward(tape, x, b, epsilon);
  }
  return classify(tape, x);
}

template <class T>
std::vector<Parameter<T>*> Model<T>::queries_and_keys() {
  std::vector<Parameter<T>*> all;
  for (const Block& b : blocks_)
    for (const Linear& layer : {b.q, b.k}) all.insert(all.end(), {layer.weight, layer.bias});
  return all;
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
