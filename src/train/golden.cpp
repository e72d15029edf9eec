#include "train/golden.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cross_entropy.h"
#include "train/checkpoint.h"
#include "train/optimizer.h"
#include "train/placed_model.h"

namespace focus {

namespace {

// The largest |got - wanted|; NaN if either has one.
template <class T>
double largest_error(const T* got, const std::vector<double>& wanted) {
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

// What one training step computes; the model then holds the stepped weights.
template <class T>
struct Step {
  std::vector<T> logits;
  T loss;
  double norm;
  std::vector<std::vector<T>> gradients;

  void take_gradients(const Model<T>& model) {
    norm = gradient_norm(model.parameters());
    for (const Parameter<T>& p : model.parameters()) gradients.push_back(p.gradient_value);
  }
};

template <class T>
Step<T> step_on_cpu(Model<T>& model, const std::vector<int>& tokens, const std::vector<int>& labels,
                    double lr, double clip, int threads) {
  Workers workers(threads);
  Tape<T> tape(workers);
  tape.reset(true);
  model.zero_gradients();
  const Tensor<T> logits = model.forward(tape, tokens.data(), int(labels.size()));
  const Tensor<T> loss = cross_entropy(tape, logits, labels.data());
  Step<T> step{{logits.data, logits.data + logits.size()}, loss.data[0], 0, {}};
  tape.backward(loss);
  step.take_gradients(model);
  Optimizer<T>(OptimizerKind::sgd, model.parameters())
      .step(model.parameters(), lr, clip_factor(step.norm, clip));
  return step;
}

// Devices compute in float.
template <class T>
Step<T> step_on_device(Device<T>& device, Model<T>& model, const std::vector<int>& tokens,
                       const std::vector<int>& labels, double lr, double clip) {
  if constexpr (std::is_same_v<T, float>) {
    PlacedModel placed(device, model.settings(), {0});
    placed.upload(0, model);
    const DeviceBuffer<int> on_device(device, tokens), right(device, labels);
    const DeviceBuffer<float> rate(device, std::vector<float>{float(lr)});
    Workers workers;
    Tape<float> tape(workers, &device);
    tape.reset(true);
    const Tensor<float> logits = placed.model().forward(tape, on_device.data(), int(labels.size()));
    const Tensor<float> loss = cross_entropy(tape, logits, right.data());
    Step<float> step{std::vector<float>(logits.size()), 0, 0, {}};
    device.download(step.logits.data(), logits.data, logits.size() * sizeof(float));
    device.download(&step.loss, loss.data, sizeof step.loss);
    tape.backward(loss);
    device.update(tape, {false, clip, loss.data, placed.values(), placed.gradients(), nullptr,
                         nullptr, rate.data(), placed.parameters()});
    placed.download_gradients(0, model);
    placed.download(0, model);
    step.take_gradients(model);
    return step;
  } else {
    fail_input("a device computes in float only");
  }
}

}  // namespace

template <class T>
std::vector<GoldenError> check_golden(const Safetensors& file, int threads, Device<T>* device) {
  ModelSettings settings = read_model_settings(file);
  if (settings.dropout != 0)
    fail_input(file.file_name(), ": metadata: dropout ", settings.dropout,
               ": a golden file can only be recomputed without dropout");
  const int B = int(file.integer_setting("batch", 1, 1 << 20));
  const double lr = file.number_setting("learning_rate"), clip = file.number_setting("clip_norm");
  const auto tokens = ids(file, "input.tokens", {B, settings.length}, settings.vocabulary);
  const auto labels = ids(file, "input.labels", {B}, settings.classes);
  const auto expected = [&](const std::string& name, const Shape64& shape) {
    file.require_finite(name);
    return file.values<double>(name, shape);
  };

  Model<T> model(settings);
  read_weights(file, model);
  const Step<T> step = device ? step_on_device<T>(*device, model, tokens, labels, lr, clip)
                              : step_on_cpu<T>(model, tokens, labels, lr, clip, threads);
  std::vector<GoldenError> errors;
  errors.push_back(
      {"logits",
       largest_error(step.logits.data(), expected("expected.logits", {B, settings.classes})),
       1e-5});
  const auto scalar = [&](const char* name, T got) {
    const std::vector<double> wanted = expected(str("expected.", name), {1});
    errors.push_back({name, largest_error(&got, wanted), 2e-6 * std::abs(wanted[0])});
  };
  scalar("loss", step.loss);
  scalar("grad_norm", T(step.norm));
  const double expected_norm = expected("expected.grad_norm", {1})[0];
  auto gradient = step.gradients.begin();
  for (const Parameter<T>& p : model.parameters()) {
    const std::vector<double> wanted = expected("grad." + p.name, shape64(p.shape));
    errors.push_back({"grad." + p.name, largest_error(gradient->data(), wanted),
                      1e-5 * largest_magnitude(wanted) + 1e-7 * expected_norm});
    ++gradient;
  }
  for (const Parameter<T>& p : model.parameters()) {
    const std::vector<double> wanted = expected("step." + p.name, shape64(p.shape));
    errors.push_back({"step." + p.name, largest_error(p.value.data(), wanted),
                      1e-5 * largest_magnitude(wanted)});
  }
  return errors;
}

template std::vector<GoldenError> check_golden<float>(const Safetensors&, int, Device<float>*);
template std::vector<GoldenError> check_golden<double>(const Safetensors&, int, Device<double>*);

}  // namespace focus
