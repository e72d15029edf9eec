// Stage 15: byte-pair encoding, baselines that count, a causal mask, classifier and loss in one,
// drawing the next token.
#include <doctest/doctest.h>

#include <cmath>

#include "attention/choose.h"
#include "attention_run.h"
#include "gradient_check.h"
#include "model_run.h"
#include "ops/classifier_loss.h"
#include "ops/cross_entropy.h"
#include "text/ngrams.h"
#include "text/text_data.h"
#include "text/text_model.h"

using namespace focus;
using namespace focus::test;

// --- tokens --------------------------------------------------------------------------------------

TEST_CASE("merge: pairs become one token, from the left") {
  const auto merged = [](std::vector<TokenId> tokens, Merge merge) {
    apply_merge(tokens, merge, 300);
    return tokens;
  };
  using Tokens = std::vector<TokenId>;
  CHECK(merged({5, 1, 2, 1, 2, 1}, {1, 2}) == Tokens{5, 300, 300, 1});
  CHECK(merged({1, 1, 1, 2, 1}, {1, 1}) == Tokens{300, 1, 2, 1});
  CHECK(merged({2, 1}, {1, 2}) == Tokens{2, 1});
  CHECK(merged({1, 2}, {1, 2}) == Tokens{300});
  CHECK(merged({}, {1, 2}).empty());
}

TEST_CASE("merges: the most frequent pair, then the most frequent one of what is left") {
  // Chunks: "low" once, " low" twice, " lower" once. l o and o w occur four times (l o has the
  // lower first id), then (lo) w; after that " " (low) three times.
  const std::vector<Merge> merges = learn_merges("low low low lower", 3);
  CHECK(merges == std::vector<Merge>{{'l', 'o'}, {256, 'w'}, {' ', 257}});
}

TEST_CASE("tokens: every byte comes back, and a text gets shorter") {
  std::string text;
  Rng rng(4, Stream::analysis);
  const char* words[] = {"the ", "king ", "of ", "was ", "Emma,\n", "truth "};
  for (int i = 0; i < 500; ++i) text += words[rng.below(6)];
  const Tokenizer tokenizer = Tokenizer::learn(TokenizerKind::bpe, text, 275);
  CHECK(tokenizer.encode(text).size() * 2 < text.size());
  std::string any;
  for (int i = 0; i < 2000; ++i) any += char(rng.below(256));
  for (const std::string& bytes : {text, any, std::string("\0\n", 2), std::string()})
    CHECK(tokenizer.decode(tokenizer.encode(bytes)) == bytes);
}

TEST_CASE("bigram: the loss by its formula, at the best strength") {
  Rng rng(6, Stream::analysis);
  std::vector<TokenId> train, held_out;
  for (int i = 0; i < 200; ++i) train.push_back(TokenId(rng.below(5) * rng.below(2)));
  for (int i = 0; i < 80; ++i) held_out.push_back(TokenId(rng.below(6) * rng.below(2)));
  constexpr int V = 7;
  double n[V] = {}, followed[V] = {}, pairs[V][V] = {};
  for (size_t i = 0; i < train.size(); ++i) {
    ++n[train[i]];
    if (i > 0) ++followed[train[i - 1]], ++pairs[train[i - 1]][train[i]];
  }
  double best = HUGE_VAL;
  for (double s = 1; s <= 4096; s *= 2) {
    double sum = 0;
    for (size_t i = 1; i < held_out.size(); ++i) {
      const int v = held_out[i - 1], w = held_out[i];
      const double p = (n[w] + 1) / (200 + V);
      sum += std::log(followed[v] + s) - std::log(pairs[v][w] + s * p);
    }
    best = std::min(best, sum / 79);
  }
  CHECK(bigram_loss(train, held_out, V).held_out == doctest::Approx(best));
}

// --- a causal mask -------------------------------------------------------------------------------

TEST_CASE("causal: the weights of every query, against a plain reference") {
  const Sizes s{2, 19, 2, 4};
  const Numbers q = quarters_for(s, 1), k = quarters_for(s, 2), v = numbers_for(s, 3),
                d_o = numbers_for(s, 4);
  for (const Pattern pattern : {Pattern::full, Pattern::topk, Pattern::banded})
    for (const int kept : {1, 3, 19}) {
      const AttentionSettings settings{pattern, kept, 0, 2, 0, 1, true};
      const AttentionRun<double> got(s, settings, q, k, v, d_o);
      const AttentionResult wanted =
          reference_attention(s, q, k, v, reference_mask(settings, s, q, k), {}, 1, d_o);
      CHECK(difference(str(name_of(pattern), "(", kept, "): "), s, got, wanted, 16) == "");
    }
  // Of every block of queries, and nothing behind the last key.
  constexpr int keys = 150;
  for (const int i0 : {0, sparse::block_queries, 2 * sparse::block_queries}) {
    const int queries = std::min(sparse::block_queries, keys - i0);
    std::vector<double> scores(size_t((keys + 1) * sparse::block_queries), 1);
    sparse::hide_later_keys(scores.data(), i0, queries, keys);
    for (int j = 0; j <= keys; ++j)
      for (int i = 0; i < queries; ++i) {
        const double score = scores[size_t(j * sparse::block_queries + i)];
        CHECK_MESSAGE(std::isinf(score) == (j < keys && j > i0 + i), "query ", i0 + i, ", key ", j,
                      " of ", keys, ": got the score ", score);
      }
  }
}

TEST_CASE("causal: another token changes nothing before it") {
  const int T = 23;
  ModelSettings m;
  m.vocabulary = m.classes = 11, m.length = T;
  m.blocks = 2, m.d_model = 8, m.d_mlp = 12, m.dropout = 0;
  m.objective = Objective::causal;
  Rng rng(2, Stream::analysis);
  std::vector<int> tokens;
  for (int t = 0; t < T; ++t) tokens.push_back(int(rng.below(11)));
  for (const Pattern pattern : {Pattern::full, Pattern::topk, Pattern::banded}) {
    m.attention = {pattern, 4, 0, 2, 0, 1, true};
    Model<float> model(m);
    model.initialise(3);
    Workers workers(1);
    const auto logits = [&](const std::vector<int>& row) {
      Tape<float> tape(workers);
      tape.reset(false);
      const Tensor<float> out = model.forward(tape, row.data(), 1);
      return std::vector<float>(out.data, out.data + out.size());
    };
    const std::vector<float> before = logits(tokens);
    for (int t = 0; t < T; ++t) {
      std::vector<int> other = tokens;
      other[size_t(t)] = (other[size_t(t)] + 1) % 11;
      const std::vector<float> after = logits(other);
      const auto at = [&](const std::vector<float>& x) { return x.begin() + t * m.classes; };
      CAPTURE(name_of(pattern));
      CAPTURE(t);
      CHECK(std::equal(before.begin(), at(before), after.begin()));
      CHECK(!std::equal(at(before), at(before) + m.classes, at(after)));
    }
  }
}

// --- the loss ------------------------------------------------------------------------------------

TEST_CASE("loss and gradient of a row: softmax - [label], for few classes and for many") {
  for (const int N : {3, 1000}) {
    CAPTURE(N);
    const int rows = 2, C = 1;
    // x = 1, 1; the logits are the weights themselves: ln 1, ln 2, ln 3, then very small ones.
    Input<double> x("x", {rows, C}, {1, 1}), w("w", {N, C}, 1), b("b", {N}, 2);
    std::fill(b.value.begin(), b.value.end(), 0.0);
    std::fill(w.value.begin(), w.value.end(), -40.0);
    for (int n = 0; n < 3; ++n) w.value[size_t(n)] = std::log(n + 1.0);
    const std::vector<int> labels = {1, 2};
    Workers workers(1);
    Tape<double> tape(workers);
    tape.reset(true);
    const Tensor<double> loss =
        classifier_loss(tape, copied(tape, x.tensor()), w.tensor(), b.tensor(), labels.data());
    tape.backward(loss);
    CHECK(loss.data[0] == doctest::Approx((std::log(3.0) + std::log(2.0)) / 2));
    const double wanted[] = {1.0 / 6, 1.0 / 3 - 0.5, 0.5 - 0.5};
    for (int n = 0; n < 3; ++n)
      CHECK(b.gradient_value[size_t(n)] == doctest::Approx(wanted[n]).epsilon(1e-9));
    CHECK(w.gradient_value[1] == doctest::Approx(wanted[1]).epsilon(1e-9));
  }
}

// --- drawing -------------------------------------------------------------------------------------

TEST_CASE("draw: a token for each part of the unit interval") {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  const auto drawn = [&](double temperature, double uniform) {
    return int(draw_token(logits, temperature, uniform));
  };
  CHECK(drawn(1, 0) == 0);
  CHECK(drawn(1, 0.49) == 0);
  CHECK(drawn(1, 0.51) == 1);
  CHECK(drawn(1, 0.79) == 1);
  CHECK(drawn(1, 0.81) == 2);
  CHECK(drawn(1, 0.9999) == 2);
  // At temperature 1/2 the weights are squared: 25, 9, 4 of 38.
  CHECK(drawn(0.5, 0.65) == 0);
  CHECK(drawn(0.5, 0.67) == 1);
  CHECK(drawn(0.5, 0.9) == 2);
  CHECK(drawn(0, 0.99) == 0);
}

TEST_CASE("draw: large logits, and the first of equal ones") {
  CHECK(draw_token({1000, 1001, -1000}, 1, 0.2) == 0);
  CHECK(draw_token({1000, 1001, -1000}, 1, 0.3) == 1);
  CHECK(draw_token({1, 2, 2}, 0, 0.9) == 1);
}
