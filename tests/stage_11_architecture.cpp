// Stage 11: heads side by side in a tensor, the weights of each block, and the way through them.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "attention_run.h"
#include "golden_run.h"
#include "model_run.h"
#include "reference_model.h"

using namespace focus;
using namespace focus::test;

namespace {

Numbers logits_of(Model<double>& model, const Batch& batch) {
  Workers workers(2);
  Tape<double> tape(workers);
  tape.reset(false);
  const Tensor<double> y = model.forward(tape, batch.tokens.data(), int(batch.labels.size()));
  return {y.data, y.data + y.size()};
}

const Parameter<float>* find(const Model<float>& model, const std::string& name) {
  for (const Parameter<float>& p : model.parameters())
    if (p.name == name) return &p;
  return nullptr;
}

}  // namespace

TEST_CASE("heads: with one token a head returns its own value") {
  // The softmax over a single key is 1, so o = v, channel by channel, in each sequence and head.
  const Sizes s{3, 1, 4, 2};
  const Numbers q = numbers_for(s, 1), k = numbers_for(s, 2), v = numbers_for(s, 3);
  const AttentionRun<double> run(s, {Pattern::full, 0, 0, s.H, 0}, q, k, v, v);
  CHECK(difference("o", s.shape(), run.o.data(), v, 0) == "");
}

TEST_CASE_TEMPLATE("heads: output and gradients of several sequences against loops", T, float,
                   double) {
  for (const Sizes s : {Sizes{3, 5, 2, 3}, Sizes{2, 7, 5, 1}, Sizes{5, 2, 3, 8}}) {
    const Numbers q = rounded<T>(numbers_for(s, 1)), k = rounded<T>(numbers_for(s, 2)),
                  v = rounded<T>(numbers_for(s, 3)), d_o = rounded<T>(numbers_for(s, 4));
    const AttentionResult wanted =
        reference_attention(s, q, k, v, Mask(s.pairs(), 1), Mask{}, 1, d_o);
    const AttentionRun<T> run(s, {Pattern::full, 0, 0, s.H, 0}, q, k, v, d_o);
    INFO("head h of a token has the channels h·D … (h+1)·D-1");
    CHECK(difference(str("(B,T,H,D) = (", s.B, ",", s.T, ",", s.H, ",", s.D, "): "), s, run, wanted,
                     16) == "");
  }
}

TEST_CASE("blocks: each has its layers, named and shaped as in the authors' checkpoints") {
  for (int heads : {1, 3}) {
    ModelSettings s =
        small_model();  // width 5, 9 in the feed-forward half, vocabulary 6, 3 classes
    s.attention.heads = heads, s.blocks = 3;
    const Model<float> model(s);
    std::vector<std::string> got, wanted = {"embedding.weight [6, 5]"};
    for (const Parameter<float>& p : model.parameters())
      got.push_back(p.name + " " + p.shape.text());
    for (const char* i : {"0", "1", "2"}) {
      const auto layer = [&](const char* name, int out, int in) {
        const std::string begin = str("encoder.transformer.", i, ".", name);
        wanted.push_back(str(begin, ".weight [", out, ", ", in, "]"));
        wanted.push_back(str(begin, ".bias [", out, "]"));
      };
      for (const char* name : {"attention.W_q", "attention.W_k", "attention.W_v"})
        layer(name, 5 * heads, 5);
      layer("attention.W_o", 5, 5 * heads);
      layer("ffn.0", 9, 5), layer("ffn.3", 5, 9);
    }
    wanted.push_back("linear.weight [3, 5]"), wanted.push_back("linear.bias [3]");
    INFO(str(heads, " heads"));
    CHECK(got == wanted);
  }
}

TEST_CASE("initial weights: uniform up to 1/√fan-in, whatever the number of heads") {
  ModelSettings s = small_model();
  s.attention.heads = 4, s.d_model = 30, s.d_mlp = 50, s.vocabulary = 40, s.classes = 20;
  Model<float> model(s);
  model.initialise(77);
  std::set<float> seen;
  size_t count = 0;
  for (const Parameter<float>& p : model.parameters()) {
    if (p.name == "linear.bias") {
      CHECK(std::count(p.value.begin(), p.value.end(), 0.f) == 20);
      continue;
    }
    const bool of_o = p.name.find("W_o") != std::string::npos,
               of_mlp_out = p.name.find("ffn.3") != std::string::npos;
    double bound = 1 / std::sqrt(of_o ? 120.0 : of_mlp_out ? 50.0 : 30.0);
    if (p.name == "embedding.weight" || p.name == "linear.weight") bound = 0.1;
    double largest = 0, sum = 0;
    for (float w : p.value) largest = std::max(largest, std::abs(double(w))), sum += double(w);
    // With 30 numbers or more the largest comes near the bound, and the mean near 0.
    CHECK_MESSAGE((largest <= bound && largest >= 0.8 * bound),
                  str(p.name, ": the largest is ", largest, ", the bound ", bound));
    CHECK_MESSAGE(std::abs(sum) <= 4 * bound / std::sqrt(3.0) * std::sqrt(double(p.value.size())),
                  str(p.name, ": the mean is ", sum / double(p.value.size())));
    seen.insert(p.value.begin(), p.value.end());
    count += p.value.size();
  }
  CHECK_MESSAGE(seen.size() > count * 99 / 100,
                str("only ", seen.size(), " of ", count,
                    " numbers are different: parameters repeat each other's"));
}

TEST_CASE("initial weights: a deeper model begins with the same blocks") {
  ModelSettings s = small_model();
  s.blocks = 2;
  Model<float> shallow(s);
  s.blocks = 4;
  Model<float> deep(s);
  shallow.initialise(5), deep.initialise(5);
  int shared = 0;
  for (const Parameter<float>& p : shallow.parameters()) {
    const Parameter<float>* other = find(deep, p.name);
    REQUIRE_MESSAGE(other, str(p.name, " is missing in the deeper model"));
    if (p.name.starts_with("linear")) continue;
    CHECK_MESSAGE(p.value == other->value, str(p.name, " differs"));
    ++shared;
  }
  CHECK(shared == 1 + 2 * 12);
}

TEST_CASE("depth: logits of one to four blocks, with one to three heads, full and top-k") {
  for (Pattern pattern : {Pattern::full, Pattern::topk})
    for (int blocks : {1, 2, 4})
      for (int heads : {1, 3}) {
        ModelSettings s = small_model(pattern);
        s.blocks = blocks, s.attention.heads = heads;
        s.first_layer_norm_epsilon = 0.3;  // far from the others', so that it is seen where it acts
        Model<double> model(s);
        fill_weights(model);
        const Batch batch = random_batch(s, 3);
        const std::string what =
            str(name_of(pattern), ", ", blocks, " blocks, ", heads, " heads: logits");
        CHECK(difference(what, {3, s.classes}, logits_of(model, batch).data(),
                         ReferenceModel(model, Noise{}).logits(batch.tokens), 200) == "");
      }
}

TEST_CASE("the authors' models with two, three and four heads") {
  for (const char* name :
       {"topk_gelu_2heads", "banded_even_3heads_global3", "full_gelu_4heads_d32"})
    CHECK(wrong_golden(name) == "");
}
