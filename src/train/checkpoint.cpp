#include "train/checkpoint.h"

#include "digits.h"

namespace focus {

Shape64 shape64(const Shape& shape) {
  Shape64 sizes;
  for (int i = 0; i < shape.rank(); ++i) sizes.push_back(shape[i]);
  return sizes;
}

void write_model_settings(Safetensors& file, const ModelSettings& s) {
  auto& m = file.metadata;
  m["attention"] = name_of(s.attention.pattern);
  m["k"] = std::to_string(uses_k(s.attention.pattern) ? s.attention.k : -1);
  m["global_tokens"] = std::to_string(s.attention.global_tokens);
  if (s.attention.score_scale != 1) m["score_scale"] = number_text(s.attention.score_scale);
  if (s.objective != Objective::classify) m["objective"] = name_of(s.objective);
  m["heads"] = std::to_string(s.attention.heads);
  m["activation"] = name_of(s.activation);
  m["d_model"] = std::to_string(s.d_model);
  m["d_mlp"] = std::to_string(s.d_mlp);
  m["blocks"] = std::to_string(s.blocks);
  m["seq_len"] = std::to_string(s.length);
  m["vocab"] = std::to_string(s.vocabulary);
  m["classes"] = std::to_string(s.classes);
  m["dropout"] = number_text(s.dropout);
  m["layer_norm_eps"] = number_text(s.layer_norm_epsilon);
  m["first_layer_norm_eps"] = number_text(s.first_layer_norm_epsilon);
}

ModelSettings read_model_settings(const Safetensors& file) {
  const auto integer = [&](const char* key, int64_t low, int64_t high) {
    return int(file.integer_setting(key, low, high));
  };
  ModelSettings s;
  const auto named = [&](const char* key, auto parse) {
    try {
      return parse(file.setting(key));
    } catch (const InputError& error) {
      fail_input(file.file_name(), ": metadata: ", error.what());
    }
  };
  constexpr int64_t most = 1 << 20;
  s.attention.pattern = named("attention", pattern_of);
  s.attention.k = integer("k", -1, most);
  s.attention.global_tokens = integer("global_tokens", 0, most);
  s.attention.heads = integer("heads", 1, most);
  if (file.metadata.contains("score_scale"))
    s.attention.score_scale = file.number_setting("score_scale");
  if (file.metadata.contains("objective")) s.objective = named("objective", objective_of);
  s.attention.causal = s.objective == Objective::causal;
  s.activation = named("activation", activation_of);
  s.d_model = integer("d_model", 1, most);
  s.d_mlp = integer("d_mlp", 1, most);
  s.blocks = integer("blocks", 1, most);
  s.length = integer("seq_len", 1, most);
  s.vocabulary = integer("vocab", 1, most);
  s.classes = integer("classes", 1, most);
  s.dropout = s.attention.dropout = file.number_setting("dropout");
  s.layer_norm_epsilon = file.number_setting("layer_norm_eps");
  s.first_layer_norm_epsilon = file.number_setting("first_layer_norm_eps");
  try {
    check_settings(s);
  } catch (const InputError& error) {
    fail_input(file.file_name(), ": metadata: ", error.what());
  }
  // A model of these sizes is allocated next: the file must be as large as it claims.
  const int64_t d = s.d_model, hd = d * s.attention.heads;
  file.require("embedding.weight", {s.vocabulary, d});
  for (int i = 0; i < s.blocks; ++i) {
    const std::string block = str("encoder.transformer.", i);
    file.require(block + ".attention.W_q.weight", {hd, d});
    file.require(block + ".ffn.0.weight", {s.d_mlp, d});
  }
  file.require("linear.weight", {s.classes, d});
  return s;
}

void write_weights(Safetensors& file, const Model<float>& model) {
  for (const Parameter<float>& p : model.parameters())
    file.add(p.name, shape64(p.shape), std::span<const float>(p.value));
  file.add("pos_encoder.pe", {1, model.settings().length, model.settings().d_model},
           model.positions());
}

template <class T>
void read_weights(const Safetensors& file, Model<T>& model) {
  for (Parameter<T>& p : model.parameters()) {
    file.require_finite(p.name);
    p.value = file.values<T>(p.name, shape64(p.shape));
    // The vector may have moved: nothing keeps its old address (Parameter::tensor() asks anew).
  }
}

template void read_weights(const Safetensors&, Model<float>&);
template void read_weights(const Safetensors&, Model<double>&);

}  // namespace focus
