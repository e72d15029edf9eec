#include "text/text_model.h"

#include <algorithm>
#include <cmath>

#include "tasks/text.h"
#include "train/checkpoint.h"

namespace focus {

std::vector<int> TextModel::window_of(const std::vector<TokenId>& tokens) const {
  const size_t length = size_t(model.settings().length);
  if (tokens.size() >= length) return {tokens.end() - ptrdiff_t(length), tokens.end()};
  std::vector<int> window(tokens.begin(), tokens.end());
  if (model.settings().objective == Objective::causal) {
    window.resize(length, 0);
    return window;
  }
  // The prompt stands at the end as it is, with repetitions of it before it.
  window.clear();
  for (size_t i = 0; i < length; ++i)
    window.push_back(tokens[(i + tokens.size() - length % tokens.size()) % tokens.size()]);
  return window;
}

std::vector<float> TextModel::next_logits(Tape<float>& tape, const std::vector<TokenId>& tokens) {
  const ModelSettings& s = model.settings();
  const std::vector<int> window = window_of(tokens);
  tape.reset(false);
  const Tensor<float> out = model.forward(tape, window.data(), 1);
  const size_t position =
      s.objective == Objective::causal ? std::min(tokens.size(), size_t(s.length)) - 1 : 0;
  const float* row = out.data + position * size_t(s.classes);
  return {row, row + s.classes};
}

bool is_text_model(const Safetensors& checkpoint) {
  const auto task = checkpoint.metadata.find("task");
  return task != checkpoint.metadata.end() && task->second == text_task().name;
}

TextModel text_model(const Safetensors& file, const std::string& name) {
  if (!is_text_model(file))
    fail_input(name, ": is no model of a text: it is of the task '", file.setting("task"),
               "', which has no next token; train one with --task text");
  TextModel loaded{name,
                   Tokenizer::parse(file.setting("tokenizer"), name + ": metadata: tokenizer"),
                   Model<float>(read_model_settings(file))};
  const ModelSettings& s = loaded.model.settings();
  const int vocabulary = loaded.tokenizer.vocabulary();
  if (s.objective == Objective::classify || s.vocabulary != vocabulary || s.classes != vocabulary)
    fail_input(name, ": its model of objective ", name_of(s.objective), " with a vocabulary of ",
               s.vocabulary, " and ", s.classes, " classes does not go with its tokenizer of ",
               vocabulary, " tokens");
  read_weights(file, loaded.model);
  return loaded;
}

TextModel load_text_model(const std::string& name) {
  return text_model(Safetensors::read(name), name);
}

TokenId draw_token(const std::vector<float>& logits, double temperature, double uniform) {
  //@ gap 15 draw-token
  const auto largest = std::max_element(logits.begin(), logits.end());
  if (temperature == 0) return TokenId(largest - logits.begin());
  std::vector<double> weights;
  double sum = 0;
  for (const float logit : logits) {
    weights.push_back(std::exp((double(logit) - double(*largest)) / temperature));
    sum += weights.back();
  }
  double left = uniform * sum;
  size_t drawn = size_t(largest - logits.begin());  // what rounding leaves over goes there
  for (size_t i = 0; i < weights.size(); ++i) {
    left -= weights[i];
    if (left < 0) {
      drawn = i;
      break;
    }
  }
  return TokenId(drawn);
  //@ end
}

}  // namespace focus
