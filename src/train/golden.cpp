#include "train/golden.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "train/checkpoint.h"
#include "train/cpu_stepper.h"

namespace focus {

namespace {

// The largest |got - wanted|; NaN if either has one.
double largest_error(const float* got, const std::vector<double>& wanted) {
  double worst = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double error = std::abs(double(got[i]) - wanted[i]);
    if (!(error <= worst)) worst = error;
    if (error != error) return error;
  }
  return worst;
}

double largest_magnitude(const std::vector<double>& values) {
  double largest = 0;
  for (double v : values) largest = std::max(largest, std::abs(v));
  return largest;
}

std::vector<int> ids(const Safetensors& file, const char* name, const Shape64& shape, int below) {
  const std::vector<int32_t> values = file.values<int32_t>(name, shape);
  for (int32_t v : values)
    if (v < 0 || v >= below)
      fail_input(file.file_name(), ": tensor '", name, "': ", v, " is not in 0 … ", below - 1);
  return {values.begin(), values.end()};
}

// Sequences as parts of one text, in which the label of a token is the next one.
PaddedData text_of(const Safetensors& file, const ModelSettings& s, const std::vector<int>& tokens,
                   const std::vector<int>& labels) {
  PaddedData data{int(tokens.size()) / s.length, s.length, s.vocabulary, {}, {}, s.length + 1};
  for (size_t i = 0; i < tokens.size(); ++i) {
    data.tokens.push_back(TokenId(tokens[i]));
    const bool last = (i + 1) % size_t(s.length) == 0;
    if (last)
      data.tokens.push_back(TokenId(labels[i]));
    else if (labels[i] != tokens[i + 1])
      fail_input(file.file_name(), ": tensor 'input.labels': ", labels[i],
                 " is not the token after ", "the one that it belongs to, ", tokens[i + 1],
                 ", as in a causal model's text");
  }
  return data;
}

}  // namespace

std::vector<GoldenError> check_golden(const Safetensors& file, int threads, Device* device) {
  ModelSettings settings = read_model_settings(file);
  if (settings.dropout != 0)
    fail_input(file.file_name(), ": metadata: dropout ", settings.dropout,
               ": a golden file can only be recomputed without dropout");
  if (settings.vocabulary > most_token_ids)
    fail_input(file.file_name(), ": metadata: vocab ", settings.vocabulary, ", more than ",
               most_token_ids);
  const int B = int(file.integer_setting("batch", 1, 1 << 20));
  const double lr = file.number_setting("learning_rate"), clip = file.number_setting("clip_norm");
  const auto tokens = ids(file, "input.tokens", {B, settings.length}, settings.vocabulary);
  const bool causal = settings.objective == Objective::causal;
  const Shape64 said = causal ? Shape64{B, settings.length} : Shape64{B};
  const auto labels = ids(file, "input.labels", said, settings.classes);
  const auto expected = [&](const std::string& name, const Shape64& shape) {
    file.require_finite(name);
    return file.values<double>(name, shape);
  };

  // The stepper's list of kernels, where it is a device's: the one launch keeps no logits.
  const StepSettings steps{.model = settings, .clip = clip, .batch = B, .form = "off"};
  Epoch epoch{{}, lr, 0};
  epoch.order.resize(size_t(B));
  std::iota(epoch.order.begin(), epoch.order.end(), 0);
  RunData data;
  data.train =
      causal ? text_of(file, settings, tokens, labels)
             : PaddedData{
                   B, settings.length, settings.vocabulary, {tokens.begin(), tokens.end()}, labels};
  const std::vector<StepRun> runs{{0, std::make_shared<const RunData>(std::move(data))}};

  Model<float> model(settings);
  read_weights(file, model);
  Optimizer<float> optimizer(OptimizerKind::sgd, model.parameters());
  Workers workers(threads);
  Tape<float> tape(workers);
  const std::unique_ptr<Stepper> stepper =
      device ? device->make_stepper(steps, runs) : std::make_unique<CpuStepper>(tape, steps, runs);
  stepper->load(0, model, optimizer);
  const Gradients step = stepper->gradients({epoch}, 0)[0];
  for (size_t p = 0; p < model.parameters().size(); ++p)
    model.parameters()[p].gradient_value = step.parameters[p];
  const double norm = gradient_norm(model.parameters());
  stepper->train({epoch}, 0, 1, std::atomic<bool>{false});
  stepper->store(0, model, optimizer);
  Shape64 logits = said;
  logits.push_back(settings.classes);
  std::vector<GoldenError> errors;
  errors.push_back(
      {"logits", largest_error(step.logits.data(), expected("expected.logits", logits)), 1e-5});
  const auto scalar = [&](const char* name, float got) {
    const std::vector<double> wanted = expected(str("expected.", name), {1});
    errors.push_back({name, largest_error(&got, wanted), 2e-6 * std::abs(wanted[0])});
  };
  scalar("loss", step.loss);
  scalar("grad_norm", float(norm));
  const double expected_norm = expected("expected.grad_norm", {1})[0];
  for (const Parameter<float>& p : model.parameters()) {
    const std::vector<double> wanted = expected("grad." + p.name, shape64(p.shape));
    errors.push_back({"grad." + p.name, largest_error(p.gradient_value.data(), wanted),
                      1e-5 * largest_magnitude(wanted) + 1e-7 * expected_norm});
  }
  for (const Parameter<float>& p : model.parameters()) {
    const std::vector<double> wanted = expected("step." + p.name, shape64(p.shape));
    errors.push_back({"step." + p.name, largest_error(p.value.data(), wanted),
                      1e-5 * largest_magnitude(wanted)});
  }
  return errors;
}

}  // namespace focus
