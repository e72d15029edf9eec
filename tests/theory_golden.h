// tests/golden/theory.json, what make_theory.py computes in double from golden files' weights, and
// those files as a model and its data.
#pragma once

#include <nlohmann/json.hpp>

#include "files/atomic_file.h"
#include "train/checkpoint.h"
#include "train/stepper.h"

namespace focus::test {

inline const nlohmann::json& theory() {
  static const nlohmann::json all =
      nlohmann::json::parse(read_file("tests/golden/theory.json", 1 << 20));
  return all;
}

template <class T>
struct GoldenModel {
  Safetensors file;
  Model<T> model;
  PaddedData data;

  explicit GoldenModel(const std::string& name)
      : file(Safetensors::read("tests/golden/" + name + ".safetensors")),
        model(read_model_settings(file)) {
    read_weights(file, model);
    const ModelSettings& s = model.settings();
    const auto tokens = file.values<int32_t>("input.tokens"),
               labels = file.values<int32_t>("input.labels");
    data = {int(labels.size()), s.length, s.vocabulary, {}, {labels.begin(), labels.end()}};
    for (int token : tokens) data.tokens.push_back(TokenId(token));
  }
};

}  // namespace focus::test
