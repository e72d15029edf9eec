// Stage 03: full attention and its gradients, the block around it, and one step of training.
#include <doctest/doctest.h>

#include "attention_run.h"
#include "golden_run.h"
#include "model_run.h"
#include "ops/cross_entropy.h"
#include "reference_model.h"
#include "train/optimizer.h"

using namespace focus;
using namespace focus::test;

namespace {

// A small model's logits in double, of a batch of 3.
Numbers logits_of(Model<double>& model, const Batch& batch, Noise noise = {}) {
  Workers workers;
  Tape<double> tape(workers);
  tape.reset(false, noise);
  const Tensor<double> y = model.forward(tape, batch.tokens.data(), int(batch.labels.size()));
  return {y.data, y.data + y.size()};
}

void set_to_zero(Model<double>& model, const std::string& part) {
  for (Parameter<double>& p : model.parameters())
    if (p.name.find(part) != std::string::npos) std::fill(p.value.begin(), p.value.end(), 0.0);
}

}  // namespace

TEST_CASE("attention: the weights of two keys, worked out by hand") {
  // D = 4, q = (2 ln 3, 0, 0, 0), keys (1, …) and (0, …): q·k is 2 ln 3 and 0, divided by √4 it is
  // ln 3 and 0, so the softmax gives 3/4 and 1/4, and o = 3/4 v₀ + 1/4 v₁.
  const Sizes s{1, 2, 1, 4};
  const double q0 = 2 * std::log(3.0);
  const AttentionRun<double> run(s, {}, {q0, 0, 0, 0, q0, 0, 0, 0}, {1, 5, 5, 5, 0, 5, 5, 5},
                                 {4, 8, -4, 0, 0, 4, 4, 1}, Numbers(8));
  INFO("other weights than 3/4 and 1/4: 0.9 and 0.1 would be those without the 1/√D");
  const Numbers wanted = {3, 7, -2, 0.25, 3, 7, -2, 0.25};
  CHECK(difference("o", s.shape(), run.o.data(), wanted, 4) == "");
}

TEST_CASE_TEMPLATE("attention: output and gradients against loops, one for each sum", T, float,
                   double) {
  // More tokens than a block of rows, tokens that fill no vector, several heads.
  for (const Sizes s :
       {Sizes{1, 1, 1, 1}, Sizes{2, 5, 1, 3}, Sizes{1, 17, 2, 8}, Sizes{2, 53, 3, 4}})
    for (double dropout : {0.0, 0.3}) {
      const AttentionSettings settings{Pattern::full, 0, 0, s.H, dropout};
      const Numbers q = rounded<T>(numbers_for(s, 1)), k = rounded<T>(numbers_for(s, 2)),
                    v = rounded<T>(numbers_for(s, 3)), d_o = rounded<T>(numbers_for(s, 4));
      const Noise noise{.on = true, .seed = 5, .step = 6};
      const Mask all(s.pairs(), 1);
      const Mask keep = dropout > 0 ? reference_weight_dropout(all, noise, 0, dropout) : Mask{};
      const AttentionResult wanted =
          reference_attention(s, q, k, v, all, keep, 1 / (1 - dropout), d_o);
      const AttentionRun<T> run(s, settings, q, k, v, d_o, noise);
      const std::string what =
          str("(B,T,H,D) = (", s.B, ",", s.T, ",", s.H, ",", s.D, "), dropout ", dropout, ": ");
      INFO(
          "with P̃ = dropout(P): dV = P̃ᵀ dO, dP̃ = dO Vᵀ, dS = P ∘ (dP − rowsum(P ∘ dP)) / √D, "
          "dQ = dS K, dK = dSᵀ Q");
      CHECK(difference(what, s, run, wanted, 16) == "");
    }
}

TEST_CASE("attention: gradients of three activations, of three parameters, of one for all three") {
  for (const Sizes s : {Sizes{1, 5, 1, 3}, Sizes{2, 53, 2, 4}}) {
    const Numbers q = numbers_for(s, 1), k = numbers_for(s, 2), v = numbers_for(s, 3),
                  d_o = numbers_for(s, 4);
    for (bool activations : {true, false})
      for (bool one : {false, true}) {
        const AttentionResult wanted =
            reference_attention(s, q, one ? q : k, one ? q : v, Mask(s.pairs(), 1), {}, 1, d_o);
        Input<double> a("q", s.shape(), q), b("k", s.shape(), k), c("v", s.shape(), v);
        // A parameter's gradient is added to what is there.
        const double before = activations ? 0 : 7;
        for (Input<double>* x : {&a, &b, &c})
          std::fill(x->gradient_value.begin(), x->gradient_value.end(), before);
        Workers workers;
        Tape<double> tape(workers);
        reset_poisoned(tape, {}, 8 * (s.pairs() + q.size()) + 10000);
        const auto input = [&](Input<double>& x) {
          return activations ? copied(tape, x.tensor()) : x.tensor();
        };
        const Tensor<double> first = input(a);
        const AttentionSettings full{Pattern::full, 0, 0, s.H};
        const Tensor<double> o = one ? attention(tape, first, first, first, full)
                                     : attention(tape, first, input(b), input(c), full);
        tape.backward(weighted_sum(tape, o, d_o));
        Numbers dq = wanted.dq, dk = wanted.dk, dv = wanted.dv;
        for (size_t i = 0; i < dq.size(); ++i) {
          if (one) dq[i] += dk[i] + dv[i];
          dq[i] += before, dk[i] += before, dv[i] += before;
        }
        const std::string what = str(s.T, " tokens, ", one ? "one for q, k, v: " : "",
                                     activations ? "activations" : "parameters");
        INFO("each gradient is set or added to as `start` and d.accumulate say");
        CHECK(difference(what + ", dq", s.shape(), a.gradient_value.data(), dq, 32) == "");
        if (one) continue;
        CHECK(difference(what + ", dk", s.shape(), b.gradient_value.data(), dk, 32) == "");
        CHECK(difference(what + ", dv", s.shape(), c.gradient_value.data(), dv, 32) == "");
      }
  }
}

TEST_CASE("attention: without a backward the same bytes, in strips of memory") {
  const Sizes s{1, 1000, 1, 4};  // three strips of queries
  const Numbers q = random_numbers(4000, 1), k = random_numbers(4000, 2),
                v = random_numbers(4000, 3);
  const AttentionSettings settings{Pattern::full, 0, 0, 1, 0.2};
  for (const Noise noise : {Noise{}, Noise{.on = true, .seed = 5, .step = 6}}) {
    const AttentionRun<double> whole(s, settings, q, k, v, q, noise, 1);
    Input<double> q_input("q", s.shape(), q), k_input("k", s.shape(), k),
        v_input("v", s.shape(), v);
    Workers workers(1);
    Tape<double> tape(workers);
    tape.reset(false, noise);
    const Tensor<double> out =
        attention(tape, q_input.tensor(), k_input.tensor(), v_input.tensor(), settings);
    CHECK(whole.o == std::vector<double>(out.data, out.data + out.size()));
    if (!noise.on) CHECK(tape.arena().capacity() < s.pairs() * sizeof(double));
  }
}

TEST_CASE("attention: equal queries get equal outputs, wherever they stand") {
  // Attention knows no positions: moving the keys and values around changes nothing.
  const Sizes s{1, 6, 1, 4};
  const Numbers q = numbers_for(s, 5), k = numbers_for(s, 6), v = numbers_for(s, 7);
  Numbers moved_k, moved_v;
  for (int t : {3, 0, 5, 1, 4, 2})
    for (int c = 0; c < s.D; ++c) {
      moved_k.push_back(k[s.at(0, t, c)]);
      moved_v.push_back(v[s.at(0, t, c)]);
    }
  const AttentionRun<double> run(s, {}, q, k, v, v), moved(s, {}, q, moved_k, moved_v, v);
  CHECK(difference("o after moving keys and values", s.shape(), moved.o.data(), run.o, 8) == "");
}

TEST_CASE("block: with W_o and the last linear layer zero it passes x through") {
  ModelSettings settings = small_model();
  Model<double> model(settings);
  fill_weights(model);
  const Batch batch = random_batch(settings, 3);
  set_to_zero(model, "W_o"), set_to_zero(model, "ffn.3");
  Model<double> other(settings);  // the same but for the weights before the zeros
  fill_weights(other, 50);
  for (size_t p = 0; p < model.parameters().size(); ++p) {
    const Parameter<double>& from = model.parameters()[p];
    if (!from.name.starts_with("encoder") || from.name.find("W_o") != std::string::npos ||
        from.name.find("ffn.3") != std::string::npos)
      other.parameters()[p].value = from.value;
  }
  INFO("x = x + branch: when the branch is 0 nothing is left of the block's other weights");
  CHECK(difference("logits", {3, settings.classes}, logits_of(other, batch).data(),
                   logits_of(model, batch), 8) == "");
  INFO("without residuals the tokens no longer reach the logits");
  Batch changed = batch;
  for (int& token : changed.tokens) token = (token + 1) % settings.vocabulary;
  CHECK(logits_of(model, changed) != logits_of(model, batch));
}

TEST_CASE("block: norm, branch, dropout, residual, each in its place") {
  for (double dropout : {0.0, 0.3}) {
    const ModelSettings settings = small_model(Pattern::full, dropout);
    Model<double> model(settings);
    fill_weights(model);
    const Batch batch = random_batch(settings, 3);
    const Noise noise{.on = true, .seed = 7, .step = 8};
    INFO("dropout ", dropout, ": x = x + drop(Attn(LN(x)) W_o); x = x + drop(MLP(LN(x)))");
    CHECK(difference("logits", {3, settings.classes}, logits_of(model, batch, noise).data(),
                     ReferenceModel(model, noise).logits(batch.tokens), 100) == "");
  }
}

TEST_CASE("block: its activation, and the two epsilons of its norms") {
  for (int which : {0, 1, 2}) {
    ModelSettings settings = small_model();
    //@ from 07
    if (which == 0) settings.activation = Activation::gelu;
    //@ end
    if (which == 1) settings.first_layer_norm_epsilon = 0.25;
    if (which == 2) settings.layer_norm_epsilon = 0.25;
    Model<double> model(settings);
    fill_weights(model);
    const Batch batch = random_batch(settings, 3);
    const char* const names[] = {"with GELU", "attention_epsilon 0.25 in the first block",
                                 "settings_.layer_norm_epsilon 0.25"};
    INFO(names[which]);
    CHECK(difference("logits", {3, settings.classes}, logits_of(model, batch).data(),
                     ReferenceModel(model, {}).logits(batch.tokens), 100) == "");
  }
}

TEST_CASE("one step of SGD against the gradient makes the loss smaller, as much as promised") {
  const ModelSettings settings = small_model();
  Model<double> model(settings);
  model.initialise(3);
  const Batch batch = random_batch(settings, 8);
  Workers workers;
  Tape<double> tape(workers);
  Optimizer<double> sgd(OptimizerKind::sgd, model.parameters());
  const double rate = 1e-4;
  double loss = 0, promised = 0;
  for (int step = 0; step < 4; ++step) {
    tape.reset(true);
    model.zero_gradients();
    const Tensor<double> y =
        cross_entropy(tape, model.forward(tape, batch.tokens.data(), 8), batch.labels.data());
    // For a small rate the loss falls by rate · ‖gradient‖².
    if (step > 0)
      CHECK_MESSAGE(std::abs((loss - y.data[0]) / promised - 1) < 0.01, "step ", step,
                    ": how much the loss fell: ", got_wanted(loss - y.data[0], promised));
    tape.backward(y);
    loss = y.data[0], promised = rate * std::pow(gradient_norm(model.parameters()), 2);
    sgd.step(model.parameters(), rate, 1);
  }
}

TEST_CASE("the authors' model: logits, loss, every gradient, and the weights after one step") {
  for (const char* name : {"full", "full_smallest", "full_length1"})
    CHECK(wrong_golden(name) == "");
}
