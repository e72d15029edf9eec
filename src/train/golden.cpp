#include "train/golden.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cross_entropy.h"
#include "train/checkpoint.h"
#include "train/optimizer.h"

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

}  // namespace

template <class T>
std::vector<GoldenError> check_golden(const Safetensors& file, int threads) {
  ModelSettings settings = read_model_settings(file);
  if (settings.dropout != 0)
    fail_input(file.file_name(), ": metadata: dropout ", settings.dropout,
               ": a golden file can only be recomputed without dropout");
  const int B = int(file.integer_setting("batch", 1, 1 << 20));
  const double lr = file.number_setting("learning_rate"), clip = file.number_setting("clip_norm");
  const auto tokens = ids(file, "input.tokens", {B, settings.length}, settings.vocabulary);
  const auto labels = ids(file, "input.labels", {B}, settings.classes);
  Model<T> model(settings);
  read_weights(file, model);
  const auto expected = [&](const std::string& name, const Shape64& shape) {
    file.require_finite(name);
    return file.values<double>(name, shape);
  };

  Workers workers(threads);
  Tape<T> tape(workers);
  tape.reset(true);
  model.zero_gradients();
  const Tensor<T> logits = model.forward(tape, tokens.data(), B);
  const Tensor<T> loss = cross_entropy(tape, logits, labels.data());
  tape.backward(loss);
  const double norm = gradient_norm(model.parameters());

  std::vector<GoldenError> errors;
  errors.push_back({"logits",
                    largest_error(logits.data, expected("expected.logits", {B, settings.classes})),
                    1e-5});
  const auto scalar = [&](const char* name, T got) {
    const std::vector<double> wanted = expected(str("expected.", name), {1});
    errors.push_back({name, largest_error(&got, wanted), 2e-6 * std::abs(wanted[0])});
  };
  scalar("loss", loss.data[0]);
  scalar("grad_norm", T(norm));
  const double expected_norm = expected("expected.grad_norm", {1})[0];
  for (const Parameter<T>& p : model.parameters()) {
    const std::vector<double> wanted = expected("grad." + p.name, shape64(p.shape));
    errors.push_back({"grad." + p.name, largest_error(p.gradient_value.data(), wanted),
                      1e-5 * largest_magnitude(wanted) + 1e-7 * expected_norm});
  }
  Optimizer<T>(OptimizerKind::sgd, model.parameters())
      .step(model.parameters(), lr, clip_factor(norm, clip));
  for (const Parameter<T>& p : model.parameters()) {
    const std::vector<double> wanted = expected("step." + p.name, shape64(p.shape));
    errors.push_back({"step." + p.name, largest_error(p.value.data(), wanted),
                      1e-5 * largest_magnitude(wanted)});
  }
  return errors;
}

template std::vector<GoldenError> check_golden<float>(const Safetensors&, int);
template std::vector<GoldenError> check_golden<double>(const Safetensors&, int);

}  // namespace focus
