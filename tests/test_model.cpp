// The model's parameters, initialisation and settings.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "model/model.h"
#include "model_run.h"

using namespace focus;
using namespace focus::test;

namespace {

std::string refusal(const ModelSettings& s) {
  try {
    Model<float> model(s);
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

// Mean and variance, as numbers of standard deviations away from those of uniform(±bound).
struct Fit {
  double mean, variance, largest;
};
Fit uniform_fit(const std::vector<float>& x, double bound) {
  const double n = double(x.size()), u = bound * bound / 3;
  double sum = 0, squares = 0, largest = 0;
  for (float value : x) {
    sum += double(value), squares += double(value) * double(value);
    largest = std::max(largest, std::abs(double(value)));
  }
  // A uniform number's square has variance 4/45 bound⁴.
  return {sum / n / std::sqrt(u / n), (squares / n - u) / (bound * bound * std::sqrt(4.0 / 45 / n)),
          largest};
}

}  // namespace

TEST_CASE("the number of parameters; their names and shapes are in stage_11_architecture.cpp") {
  ModelSettings s = small_model();
  s.blocks = 5;
  const Model<float> model(s);
  size_t count = 0;
  for (const Parameter<float>& p : model.parameters()) count += p.value.size();
  CHECK(model.parameter_count() == count);
  CHECK(model.parameters().size() == 1 + 5 * 12 + 2);
  CHECK(model.positions().size() == 7 * 5);
}

TEST_CASE("initialisation: range and distribution of every parameter") {
  ModelSettings s = small_model();
  s.attention.heads = 3, s.d_model = 30, s.d_mlp = 50, s.vocabulary = 200, s.classes = 40;
  Model<float> model(s);
  model.initialise(2024);
  for (const Parameter<float>& p : model.parameters()) {
    // ±1/√fan_in; a bias has the fan-in of its weight.
    double bound = 1 / std::sqrt(30.0);
    if (p.name.find("W_o") != std::string::npos) bound = 1 / std::sqrt(90.0);
    if (p.name.find("ffn.3") != std::string::npos) bound = 1 / std::sqrt(50.0);
    if (p.name == "embedding.weight" || p.name == "linear.weight") bound = 0.1;
    if (p.name == "linear.bias") {
      CHECK(std::count(p.value.begin(), p.value.end(), 0.f) == 40);
      continue;
    }
    const Fit fit = uniform_fit(p.value, bound);
    CHECK_MESSAGE(std::abs(fit.mean) < 4, p.name, " mean ", fit.mean);
    CHECK_MESSAGE(std::abs(fit.variance) < 4, p.name, " variance ", fit.variance);
    CHECK_MESSAGE(fit.largest <= bound * (1 + 1e-6), p.name);
    // The largest of n numbers falls short of the bound by bound/n on average.
    CHECK_MESSAGE(fit.largest > bound * (1 - 12.0 / double(p.value.size())), p.name);
  }
}

TEST_CASE("initialisation depends on the seed alone; parameters draw different numbers") {
  Model<float> a(small_model()), b(small_model(Pattern::topk)), c(small_model());
  a.initialise(5), b.initialise(5), c.initialise(6);
  std::set<float> numbers;
  size_t drawn = 0;
  for (size_t p = 0; p < a.parameters().size(); ++p) {
    const std::vector<float>& value = a.parameters()[p].value;
    CHECK(b.parameters()[p].value == value);
    if (a.parameters()[p].name == "linear.bias") continue;
    CHECK(c.parameters()[p].value != value);
    // As fractions of their bounds, in double, no two numbers are equal.
    drawn += value.size();
    for (float x : value) numbers.insert(x);
  }
  // Two of some thousand floats may coincide; whole tensors may not.
  CHECK(numbers.size() > drawn - 5);
  std::vector<float> first = a.parameters()[1].value, second = a.parameters()[3].value;
  CHECK(first != second);
  a.initialise(5);  // again: the same
  CHECK(a.parameters()[1].value == first);
}

TEST_CASE("float and double models start from the same numbers") {
  Model<float> a(small_model());
  Model<double> b(small_model());
  a.initialise(9), b.initialise(9);
  for (size_t p = 0; p < a.parameters().size(); ++p)
    for (size_t i = 0; i < a.parameters()[p].value.size(); ++i)
      CHECK(a.parameters()[p].value[i] == float(b.parameters()[p].value[i]));
}

TEST_CASE("settings out of range are refused by name") {
  CHECK(refusal(small_model()) == "accepted");
  const auto with = [](auto change) {
    ModelSettings s = small_model();
    change(s);
    return refusal(s);
  };
  CHECK(with([](auto& s) { s.length = 0; }) == "length 0 is not between 1 and 16384");
  CHECK(with([](auto& s) { s.vocabulary = 0; }).find("vocabulary 0") == 0);
  CHECK(with([](auto& s) { s.classes = -1; }).find("classes -1") == 0);
  CHECK(with([](auto& s) { s.blocks = 0; }).find("blocks 0") == 0);
  CHECK(with([](auto& s) { s.blocks = 1001; }).find("blocks 1001") == 0);
  CHECK(with([](auto& s) { s.d_model = 1 << 30; }).find("d-model") == 0);
  CHECK(with([](auto& s) { s.d_mlp = 0; }).find("d-mlp 0") == 0);
  CHECK(with([](auto& s) { s.attention.heads = 0; }).find("heads 0") == 0);
  CHECK(with([](auto& s) { s.dropout = 1; }).find("dropout 1") == 0);
  CHECK(with([](auto& s) { s.dropout = NAN; }).find("dropout nan") == 0);
  CHECK(with([](auto& s) { s.attention.dropout = -1; }).find("dropout -1") == 0);
  CHECK(with([](auto& s) { s.layer_norm_epsilon = -1; }).find("layer-norm epsilon -1") == 0);
  CHECK(with([](auto& s) { s.first_layer_norm_epsilon = NAN; }).find("first layer-norm") == 0);
  CHECK(with([](auto& s) { s.first_layer_norm_epsilon = 0; }) == "accepted");
  CHECK(with([](auto& s) { s.attention = {Pattern::topk, 8, 0, 1, 0}; }).find("k = 8") == 0);
}

TEST_CASE("a token outside the vocabulary is named") {
  Model<float> model(small_model());
  model.initialise(1);
  Workers workers;
  Tape<float> tape(workers);
  tape.reset(false);
  std::vector<int> tokens(7, 0);
  tokens[4] = 6;
  CHECK_THROWS_WITH_AS(model.forward(tape, tokens.data(), 1),
                       "embedding: token 6 at row 0, position 4 is outside the vocabulary of 6",
                       InputError);
}
