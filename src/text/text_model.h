// A checkpoint of --task text, and what it says about the token that comes next.
#pragma once

#include <string>
#include <vector>

#include "files/safetensors.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace focus {

struct TextModel {
  std::string name;  // of the file
  Tokenizer tokenizer;
  Model<float> model;

  // The tokens of a window, from at least one: the last ones of `tokens`. A causal model sees
  // nothing behind the last, so a short context is filled up there; a pooled one takes the mean of
  // the whole window, and a short context is repeated from its beginning until it fills one.
  std::vector<int> window_of(const std::vector<TokenId>& tokens) const;
  // The logits of the token after `tokens`, one for each id.
  std::vector<float> next_logits(Tape<float>& tape, const std::vector<TokenId>& tokens);
};

bool is_text_model(const Safetensors& checkpoint);

// InputError unless it is a checkpoint of the task text whose tokenizer fits its model.
TextModel load_text_model(const std::string& name);
TextModel text_model(const Safetensors& checkpoint, const std::string& name);

// Draws a token: the logits over the temperature are the logarithms of its weights; at temperature
// 0 the token with the largest logit, the lowest of equal ones. `uniform` is in [0, 1).
TokenId draw_token(const std::vector<float>& logits, double temperature, double uniform);

}  // namespace focus
