// What the softmax sees: scores of a model, and dispersion, separation and sensitivity of rows.
#include <doctest/doctest.h>

#include <cmath>

#include "analysis/scores.h"
#include "close.h"
#include "tensor/softmax.h"

using namespace focus;
using namespace focus::test;

namespace {

ModelSettings small_model(AttentionSettings attention) {
  ModelSettings s;
  s.attention = attention;
  s.vocabulary = 5, s.classes = 3, s.length = 7, s.blocks = 2, s.d_model = 9, s.d_mlp = 6;
  return s;
}

std::vector<int> some_tokens(int B, const ModelSettings& s) {
  Rng rng(5, Stream::analysis, 1);
  std::vector<int> tokens(size_t(B * s.length));
  for (int& t : tokens) t = int(rng.below(uint32_t(s.vocabulary)));
  return tokens;
}

// One head, T tokens, its scores given.
HeadScores head_of(int B, int T, const std::vector<double>& scores) {
  return {0, 0, B, T, scores};
}

}  // namespace

TEST_CASE_TEMPLATE("the recomputed forward is the model's, and every head is visited", T, float,
                   double) {
  for (const AttentionSettings& attention :
       {AttentionSettings{}, AttentionSettings{Pattern::topk, 3, 0, 2, 0.1},
        AttentionSettings{Pattern::banded, 3, 1, 3, 0}}) {
    ModelSettings s = small_model(attention);
    s.activation = Activation::gelu, s.first_layer_norm_epsilon = 0.5;
    Model<T> model(s);
    model.initialise(11);
    const std::vector<int> tokens = some_tokens(3, s);
    Workers workers;
    Tape<T> tape(workers);
    tape.reset(false);
    const Tensor<T> logits = model.forward(tape, tokens.data(), 3);
    std::vector<std::pair<int, int>> seen;
    const std::vector<T> recomputed =
        visit_attention_scores<T>(model, tokens.data(), 3, workers, [&](const HeadScores& head) {
          seen.push_back({head.block, head.head});
        });
    // The same operations on the same numbers; only the additions of the residuals are grouped
    // differently at most.
    CHECK(difference("logits", logits.shape, recomputed.data(),
                     std::vector<double>(logits.data, logits.data + logits.size()), 2) == "");
    std::vector<std::pair<int, int>> wanted;
    for (int block = 0; block < 2; ++block)
      for (int head = 0; head < attention.heads; ++head) wanted.push_back({block, head});
    CHECK(seen == wanted);
  }
}

TEST_CASE("softmax over the recomputed scores is the model's attention") {
  // A model that shows its attention: two tokens' embeddings, W_v passes channel 0 of the normed
  // tokens on as a number per key, W_o copies it, and nothing else reaches the logits.
  for (int heads : {1, 2}) {
    // With two heads also with a factor on the scores.
    ModelSettings s = small_model({Pattern::full, 0, 0, heads, 0, heads == 1 ? 1.0 : 3.0});
    s.blocks = 1;
    Model<double> model(s);
    model.initialise(3);
    const int C = s.d_model, L = s.length;
    const auto parameter = [&](const std::string& name) -> Parameter<double>& {
      for (Parameter<double>& p : model.parameters())
        if (p.name == name) return p;
      FAIL("no parameter ", name);
      return model.parameters().front();
    };
    // Output channel h = Σ_j p_ij (normed key j's channel 0), for head h; the MLP adds nothing.
    for (const char* name : {".attention.W_v", ".attention.W_o", ".ffn.3"})
      for (const char* part : {".weight", ".bias"}) {
        auto& value = parameter(std::string("encoder.transformer.0") + name + part).value;
        std::fill(value.begin(), value.end(), 0.0);
      }
    auto& w_v = parameter("encoder.transformer.0.attention.W_v.weight").value;  // (H·C, C)
    auto& w_o = parameter("encoder.transformer.0.attention.W_o.weight").value;  // (C, H·C)
    auto& out = parameter("linear.weight").value;                               // (classes, C)
    std::fill(out.begin(), out.end(), 0.0);
    for (int h = 0; h < heads; ++h) {
      w_v[size_t((h * C + 4) * C)] = 1;
      w_o[size_t(h * heads * C + h * C + 4)] = 100;  // far above the residual's own numbers
      out[size_t(h * C + h)] = 1;
    }
    const std::vector<int> tokens = some_tokens(2, s);
    Workers workers;
    std::vector<double> pe(model.positions().begin(), model.positions().end());
    const auto& table = parameter("embedding.weight").value;

    // Wanted: logit h of sequence b = mean over queries of (x_i,h + 100 Σ_j p_ij normed_j,0).
    const std::vector<HeadScores> all = attention_scores(model, tokens.data(), 2, workers);
    REQUIRE(all.size() == size_t(heads));
    std::vector<double> wanted(size_t(2 * s.classes), 0.0);
    for (int b = 0; b < 2; ++b)
      for (int h = 0; h < heads; ++h)
        for (int i = 0; i < L; ++i) {
          std::vector<double> p(static_cast<size_t>(L));
          softmax_row(p.data(), all[size_t(h)].row(b, i).data(), L, 1.0);
          const auto x = [&](int j, int c) {
            return table[size_t(tokens[size_t(b * L + j)] * C + c)] * std::sqrt(double(C)) +
                   pe[size_t(j * C + c)];
          };
          double output = x(i, h);
          for (int j = 0; j < L; ++j) {
            double mean = 0, variance = 0;
            for (int c = 0; c < C; ++c) mean += x(j, c) / C;
            for (int c = 0; c < C; ++c) variance += std::pow(x(j, c) - mean, 2) / C;
            output += 100 * p[size_t(j)] * (x(j, 0) - mean) / std::sqrt(variance + 1e-5);
          }
          wanted[size_t(b * s.classes + h)] += output / L;
        }
    Tape<double> tape(workers);
    tape.reset(false);
    const Tensor<double> logits = model.forward(tape, tokens.data(), 2);
    CHECK(difference("logits", logits, wanted, 100) == "");
  }
}

TEST_CASE("sensitivity is the 1-norm of the Jacobian, at most a half") {
  CHECK(softmax_sensitivity(std::vector<double>{7}) == 0);
  CHECK(softmax_sensitivity(std::vector<double>{-3, -3}) == doctest::Approx(0.5));
  CHECK(softmax_sensitivity(std::vector<double>{0, 0, 0, 0}) == doctest::Approx(2 * 0.25 * 0.75));
  // p = (0.7, 0.2, 0.1): the first column's sum is 2 · 0.7 · 0.3.
  const std::vector<double> s{std::log(7.0), std::log(2.0), 0};
  CHECK(softmax_sensitivity(s) == doctest::Approx(0.42));
}

TEST_CASE("statistics of rows under each pattern") {
  // Two sequences of four tokens; the first query's scores are the interesting ones.
  std::vector<double> scores(2 * 16, 0.0);
  const double first[] = {1, 5, 2, 5}, second[] = {-1, -4, 0.5, 3};
  std::copy_n(first, 4, scores.begin());
  std::copy_n(second, 4, scores.begin() + 16);
  const HeadScores head = head_of(2, 4, scores);
  const auto query = [&](Pattern pattern, int k, int b, int i) {
    const auto all = query_statistics(head, {pattern, k, 0, 1, 0});
    REQUIRE(all.size() == 8);
    return all[size_t(b * 4 + i)];
  };
  const QueryStatistics full = query(Pattern::full, 0, 0, 0);
  CHECK(full.dispersion == 4);
  CHECK(full.kept_dispersion == 4);
  CHECK(std::isnan(full.separation));
  CHECK(full.sensitivity == softmax_sensitivity(std::span(first)));

  const QueryStatistics top = query(Pattern::topk, 3, 0, 0);  // keeps 5, 2, 5
  CHECK(top.dispersion == 4);
  CHECK(top.kept_dispersion == 3);
  CHECK(top.separation == 1);
  CHECK(query(Pattern::topk, 1, 0, 0).separation == 0);  // the tie of 5 and 5
  CHECK(query(Pattern::topk, 2, 1, 0).separation == 1.5);
  CHECK(std::isnan(query(Pattern::topk, 4, 1, 0).separation));

  const QueryStatistics bottom = query(Pattern::bottomk, 2, 1, 0);  // keeps -1, -4
  CHECK(bottom.kept_dispersion == 3);
  CHECK(bottom.separation == -7);

  const QueryStatistics band = query(Pattern::banded, 2, 1, 0);  // keeps keys 0 and 1
  CHECK(band.dispersion == 7);
  CHECK(band.kept_dispersion == 3);
  CHECK(band.separation == -7);
  CHECK_THROWS_AS(query(Pattern::random, 2, 0, 0), InputError);
  CHECK_THROWS_AS(query(Pattern::topk, 5, 0, 0), InputError);
}
