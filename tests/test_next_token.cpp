// Models that predict the next token of a text: what they read and are asked, their evaluation, and
// depth in float32.
#include <doctest/doctest.h>

#include <numeric>

#include "model_run.h"
#include "reference_model.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/settings.h"

using namespace focus;
using namespace focus::test;

namespace {

ModelSettings next_token_model(Objective objective, int vocabulary) {
  ModelSettings s = objective == Objective::causal ? causal_model(Pattern::topk) : small_model();
  s.objective = objective, s.vocabulary = s.classes = vocabulary;
  return s;
}

// Windows of a stream whose ids go beyond a byte.
PaddedData windows(const ModelSettings& s, int rows, int row_stride) {
  PaddedData data{rows, s.length, s.vocabulary, {}, {}, row_stride};
  Rng rng(5, Stream::data);
  for (size_t i = 0; i < data.needed_tokens(); ++i)
    data.tokens.push_back(TokenId(rng.below(uint32_t(s.vocabulary))));
  return data;
}

}  // namespace

TEST_CASE("streams: rows overlap, and the labels are the tokens that follow") {
  PaddedData data{3, 4, 65536, {10, 11, 12, 13, 14, 15, 65535}, {}, 1};
  CHECK(data.is_stream());
  CHECK(data.needed_tokens() == 7);
  std::vector<int> tokens, one, each, ignored;
  for (int row : {0, 2}) {
    append_row(data, row, 1, tokens, one);
    append_row(data, row, 4, ignored, each);
  }
  CHECK(tokens == std::vector<int>{10, 11, 12, 13, 12, 13, 14, 15});
  CHECK(one == std::vector<int>{14, 65535});
  CHECK(each == std::vector<int>{11, 12, 13, 14, 13, 14, 15, 65535});
  // Rows two tokens apart, and an order that begins them anywhere.
  data.row_stride = 2, data.order_stride = 1;
  one.clear();
  append_row(data, 1, 1, ignored, one);
  append_drawn(data, 1, 1, ignored, one);
  CHECK(one == std::vector<int>{65535, 15});
  data.order_stride = 0;
  append_drawn(data, 1, 1, ignored, one);
  CHECK(one.back() == 65535);
  data.row_stride = 0;  // the row's length: windows one after the other
  CHECK(data.needed_tokens() == 13);

  const PaddedData task{2, 2, 9, {1, 2, 3, 4}, {7, 8}};
  CHECK(!task.is_stream());
  CHECK(task.needed_tokens() == 4);
  one.clear();
  append_row(task, 1, 1, ignored, one);
  CHECK(one == std::vector<int>{8});
}

TEST_CASE("next token: steps and evaluation of a stepper see the windows of the stream") {
  for (const Objective objective : {Objective::pooled, Objective::causal}) {
    const ModelSettings s = next_token_model(objective, 300);
    const StepSettings settings{.model = s, .clip = 0, .batch = 2};
    RunData data{windows(s, 5, 1), windows(s, 4, s.length)};
    const PaddedData train = data.train, val = data.val;
    Workers workers;
    Tape<float> tape(workers);
    CpuStepper stepper(tape, settings, {{3, std::make_shared<const RunData>(std::move(data))}});
    Model<float> model(s);
    fill_weights(model);
    Optimizer<float> optimizer(OptimizerKind::sgd, model.parameters());
    stepper.load(0, model, optimizer);

    // The second step of the order 4 0 2 1 3 reads windows 2 and 1.
    const Epoch epoch{{4, 0, 2, 1, 3}, 0.1, 0};
    const Gradients got = stepper.gradients({epoch}, 1)[0];
    std::vector<int> tokens, labels;
    for (const int row : {2, 1})
      for (int t = 0; t < s.length; ++t) {
        tokens.push_back(train.tokens[size_t(row + t)]);
        if (objective == Objective::causal || t + 1 == s.length)
          labels.push_back(train.tokens[size_t(row + t + 1)]);
      }
    const Numbers logits = ReferenceModel(model, {}).logits(tokens);
    CHECK(difference("logits", {int(labels.size()), 300}, got.logits.data(), logits, 20) == "");
    CHECK(double(got.loss) ==
          doctest::Approx(reference_cross_entropy(logits, labels, 300)).epsilon(1e-6));

    // Held-out windows, one after the other: the mean over all that is said.
    const std::atomic<bool> never{false};
    const Evaluation evaluation = stepper.evaluate(Split::held_out, never)->at(0);
    tokens.clear(), labels.clear();
    for (int row = 0; row < 4; ++row) append_row(val, row, s.targets(), tokens, labels);
    const Numbers all = ReferenceModel(model, {}).logits(tokens);
    int right = 0;
    for (size_t p = 0; p < labels.size(); ++p) {
      const auto row = all.begin() + ptrdiff_t(p) * 300;
      right += int(std::max_element(row, row + 300) - row) == labels[p];
    }
    CHECK(evaluation.loss ==
          doctest::Approx(reference_cross_entropy(all, labels, 300)).epsilon(1e-6));
    CHECK(evaluation.accuracy == doctest::Approx(100.0 * right / double(labels.size())));
  }
}

TEST_CASE("next token: 64 blocks stay finite in float32 and learn") {
  for (const Objective objective : {Objective::pooled, Objective::causal})
    for (const Pattern pattern : {Pattern::full, Pattern::topk}) {
      ModelSettings s;  // the paper's rate, decay aside, and its clip
      s.attention = {pattern, 5, 0, 1, 0.01, 1, objective == Objective::causal};
      s.objective = objective, s.vocabulary = s.classes = 40, s.length = 12, s.blocks = 64;
      s.d_model = 16, s.d_mlp = 32;
      Training<float> training(s, OptimizerKind::sgd, 2, 8);
      // Text that can be learnt: token after token.
      for (size_t i = 0; i < training.batch.tokens.size(); ++i)
        training.batch.tokens[i] = int(i * 7 % 40);
      for (size_t i = 0; i < training.batch.labels.size(); ++i)
        training.batch.labels[i] = int((i * 7 + 3) % 40);
      std::vector<double> losses;
      for (int step = 0; step < 12; ++step) losses.push_back(training.step(1.0));
      CAPTURE(name_of(objective));
      CAPTURE(name_of(pattern));
      for (const double loss : losses) CHECK(std::isfinite(loss));
      CHECK(std::abs(losses[0] - std::log(40.0)) < 1);  // knows nothing yet
      // Three steps' mean: single ones of this rate may go up.
      const auto mean = [&](size_t first) {
        return (losses[first] + losses[first + 1] + losses[first + 2]) / 3;
      };
      CHECK(mean(9) < mean(0) - 0.1);
    }
}

TEST_CASE("next token: a step asks the system for no memory once two have been made") {
  ModelSettings s = next_token_model(Objective::causal, 300);
  Training<float> training(s, OptimizerKind::sgd, 2);
  for (int step = 0; step < 2; ++step) training.step(0.1);
  const size_t before = training.tape.arena().system_requests();
  for (int step = 0; step < 3; ++step) training.step(0.1);
  CHECK(training.tape.arena().system_requests() == before);
}

TEST_CASE("next token: a checkpoint says the objective, where it is not the usual one") {
  for (const Objective objective : {Objective::classify, Objective::pooled, Objective::causal}) {
    const ModelSettings s = next_token_model(objective, 11);
    Safetensors file;
    write_model_settings(file, s);
    write_weights(file, Model<float>(s));
    CHECK(file.metadata.contains("objective") == (objective != Objective::classify));
    const ModelSettings read = read_model_settings(file);
    CHECK(read.objective == objective);
    CHECK(read.attention.causal == (objective == Objective::causal));
  }
  CHECK_THROWS_AS(objective_of("next"), InputError);
}

TEST_CASE("next token: settings that do not go together name their flags") {
  const auto refusal = [](const auto& change) -> std::string {
    RunSettings s;
    s.task = "text", s.objective = Objective::causal, s.text_data = "text",
    s.attention = Pattern::full;
    change(s);
    try {
      check_settings(s);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  };
  CHECK(refusal([](RunSettings& s) { s.text_data = ""; }) ==
        "--task text needs --text-data DIR, which 'focus text prepare' makes");
  for (const Pattern pattern : {Pattern::block, Pattern::bottomk, Pattern::random})
    CHECK(refusal([&](RunSettings& s) { s.attention = pattern, s.k = 3; }) ==
          str("--objective causal goes with --attention full, topk or banded, not ",
              name_of(pattern)));
  CHECK(refusal([](RunSettings& s) {
          s.attention = Pattern::banded, s.k = 3, s.global_tokens = 1;
        }) == "--global-tokens does not go with --task text");
  CHECK(
      refusal([](RunSettings& s) { s.objective = Objective::classify; }) ==
      "--objective classify does not go with --task text: text has pooled and causal, every other "
      "task classify");
  CHECK(to_text(RunSettings()).contains("objective") == false);
  CHECK(to_text(RunSettings()).contains("text-data") == false);
  ModelSettings wrong = causal_model(Pattern::full);
  wrong.attention.causal = false;
  CHECK_THROWS_WITH_AS(check_settings(wrong), "objective causal with attention that is not causal",
                       InputError);
}
