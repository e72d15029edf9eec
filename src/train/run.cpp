#include "train/run.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "files/data_file.h"
#include "ops/cross_entropy.h"
#include "rng.h"
#include "train/checkpoint.h"

namespace focus {

std::shared_ptr<const RunData> make_run_data(const RunSettings& s, uint64_t seed) {
  const Task& task = find_task(s.task);
  const auto examples = [&](const std::string& file, int size, uint32_t split) {
    return file.empty() ? generate_examples(task, size, s.length, data_seed(task, seed), split)
                        : read_data_file(task, file);
  };
  const std::vector<Example> train = examples(s.train_data, s.train_size, train_split);
  const std::vector<Example> val = examples(s.val_data, s.val_size, held_out_split);
  const int longest = std::max(longest_example(train), longest_example(val));
  const int multiple = uses_k(s.attention) ? s.k : 0;
  if (multiple > longest)
    fail_input("--k ", s.k, " exceeds the longest sequence of the data, ", longest, " tokens");
  const auto pad = [&](const std::vector<Example>& rows) {
    return pad_examples(rows, task, multiple, s.global_tokens, longest);
  };
  return std::make_shared<const RunData>(RunData{pad(train), pad(val)});
}

std::optional<Evaluation> evaluate(Model<float>& model, Tape<float>& tape, const PaddedData& data,
                                   const std::atomic<bool>* stop, std::vector<float>* logits) {
  const int classes = model.settings().classes, length = data.length;
  const int batch = std::max(1, 4096 / length);  // rows at once: activations that fit the cache
  double loss = 0;
  int right = 0;
  std::vector<int> tokens;
  for (int first = 0; first < data.rows; first += batch) {
    if (stop && stop->load()) return std::nullopt;
    const int rows = std::min(batch, data.rows - first);
    const auto begin = data.tokens.begin() + ptrdiff_t{first} * length;
    tokens.assign(begin, begin + ptrdiff_t{rows} * length);
    tape.reset(false);
    const Tensor<float> out = model.forward(tape, tokens.data(), rows);
    //@ gap 06 evaluate-rows
    for (int b = 0; b < rows; ++b) {
      const float* row = out.data + ptrdiff_t{b} * classes;
      const int label = data.labels[size_t(first + b)];
      loss += row_cross_entropy(row, classes, label);
      right += std::max_element(row, row + classes) - row == label;
    }
    //@ end
    if (logits) logits->insert(logits->end(), out.data, out.data + out.size());
  }
  return Evaluation{loss / data.rows, 100.0 * right / data.rows};
}

Run::Run(const RunSettings& settings, uint64_t seed, std::shared_ptr<const RunData> data)
    : settings_(settings),
      seed_(seed),
      data_(std::move(data)),
      model_(settings.model_settings(data_->train.vocabulary, data_->train.length)),
      optimizer_(settings.optimizer, model_.parameters()) {
  model_.initialise(seed);
  for (Parameter<float>* p : model_.queries_and_keys()) {
    for (float& w : p->value) w *= float(settings.qk_scale);
    p->rate_factor = settings.freeze_qk ? 0 : settings.qk_rate;
  }
}

void Run::train_step(Tape<float>& tape, const std::vector<int>& order) {
  const PaddedData& data = data_->train;
  const int first = step_ * settings_.batch, rows = std::min(settings_.batch, data.rows - first);
  tokens_.resize(size_t(rows) * size_t(data.length));
  labels_.resize(size_t(rows));
  for (int b = 0; b < rows; ++b) {
    const int row = order[size_t(first + b)];
    const auto from = data.tokens.begin() + ptrdiff_t{row} * data.length;
    std::copy(from, from + data.length, tokens_.begin() + ptrdiff_t{b} * data.length);
    labels_[size_t(b)] = data.labels[size_t(row)];
  }

  tape.reset(true, Noise{true, seed_, noise_step(), 0});
  model_.zero_gradients();
  const Tensor<float> loss =
      cross_entropy(tape, model_.forward(tape, tokens_.data(), rows), labels_.data());
  tape.backward(loss);
  const double norm = gradient_norm(model_.parameters());
  if (!std::isfinite(loss.data[0]) || !std::isfinite(norm)) fail_at_step(step_, loss.data[0], norm);
  optimizer_.step(model_.parameters(), rate(), clip_factor(norm, settings_.clip));
  ++step_;
}

std::vector<int> Run::epoch_order() const {
  std::vector<int> order(size_t(data_->train.rows));
  std::iota(order.begin(), order.end(), 0);
  Rng(seed_, Stream::order, uint32_t(epochs_done_)).shuffle(order);
  return order;
}

uint32_t Run::noise_step() const {
  return uint32_t(epochs_done_) * uint32_t(steps_per_epoch()) + uint32_t(step_);
}

int Run::steps_per_epoch() const {
  return (data_->train.rows + settings_.batch - 1) / settings_.batch;
}

double Run::rate() const {
  return decayed_rate(settings_.lr, settings_.lr_decay, epochs_done_);
}

void Run::took_steps(int steps) {
  step_ += steps;
  optimizer_.set_steps_taken(optimizer_.steps_taken() + steps);
}

void Run::fail_at_step(int step, double loss, double norm) const {
  fail_run("seed ", seed_, ", epoch ", epochs_done_ + 1, ", step ", step + 1, ": the loss is ",
           loss, " and the gradient's norm ", norm, " (task ", settings_.task, ", attention ",
           name_of(settings_.attention), ", lr ", settings_.lr,
           "); try a smaller --lr, the last good checkpoint is kept");
}

std::optional<EpochMetrics> Run::run_epoch(Tape<float>& tape, const std::atomic<bool>& stop) {
  const std::vector<int> order = epoch_order();
  while (step_ < steps_per_epoch()) {
    if (stop.load()) return std::nullopt;
    train_step(tape, order);
  }
  const auto train = evaluate(model_, tape, data_->train, &stop);
  const auto val = train ? evaluate(model_, tape, data_->val, &stop) : std::nullopt;
  if (!val) return std::nullopt;
  return finish_epoch(*train, *val);
}

EpochMetrics Run::finish_epoch(const Evaluation& train, const Evaluation& val) {
  if (!std::isfinite(train.loss) || !std::isfinite(val.loss))
    fail_run("seed ", seed_, ", epoch ", epochs_done_ + 1, ": the loss at evaluation is ",
             train.loss, " (training set) and ", val.loss,
             " (held-out); try a smaller --lr, the last good checkpoint is kept");
  ++epochs_done_;
  step_ = 0;
  is_best_ =
      val.accuracy > best_accuracy_ || (val.accuracy == best_accuracy_ && val.loss < best_loss_);
  if (is_best_) best_accuracy_ = val.accuracy, best_loss_ = val.loss;
  return EpochMetrics{epochs_done_, seed_, train.loss, train.accuracy, val.loss, val.accuracy, 0};
}

Safetensors Run::checkpoint() const {
  Safetensors file;
  write_model_settings(file, model_.settings());
  for (const auto& [name, text] : to_text(settings_)) file.metadata["run." + name] = text;
  file.metadata.emplace("format", "semantic-focus checkpoint");
  file.metadata.emplace("format_version", checkpoint_format);
  file.metadata["task"] = settings_.task;
  file.metadata["seed"] = std::to_string(seed_);
  file.metadata["epochs_done"] = std::to_string(epochs_done_);
  file.metadata["step_in_epoch"] = std::to_string(step_);
  file.metadata["best_val_accuracy"] = number_text(best_accuracy_);
  file.metadata["best_val_loss"] = number_text(best_loss_);
  file.metadata["optimizer_steps"] = std::to_string(optimizer_.steps_taken());
  write_weights(file, model_);
  for (size_t i = 0; i < optimizer_.first_moments().size(); ++i) {
    const Parameter<float>& p = model_.parameters()[i];
    const int64_t n = int64_t(p.value.size());
    file.add("optimizer.m." + p.name, {n}, std::span<const float>(optimizer_.first_moments()[i]));
    file.add("optimizer.v." + p.name, {n}, std::span<const float>(optimizer_.second_moments()[i]));
  }
  return file;
}

void Run::restore(const Safetensors& file) {
  if (file.setting("format_version") != checkpoint_format)
    fail_input(file.file_name(), ": checkpoint format ", file.setting("format_version"),
               ", this program reads ", checkpoint_format);
  if (file.setting("seed") != std::to_string(seed_))
    fail_input(file.file_name(), ": is of seed ", file.setting("seed"), ", not of ", seed_);
  read_weights(file, model_);
  for (size_t i = 0; i < optimizer_.first_moments().size(); ++i) {
    const Parameter<float>& p = model_.parameters()[i];
    const Shape64 shape{int64_t(p.value.size())};
    for (const char* moment : {"m.", "v."}) file.require_finite(str("optimizer.", moment, p.name));
    optimizer_.first_moments()[i] = file.values<float>("optimizer.m." + p.name, shape);
    optimizer_.second_moments()[i] = file.values<float>("optimizer.v." + p.name, shape);
  }
  optimizer_.set_steps_taken(long(file.integer_setting("optimizer_steps", 0, int64_t{1} << 50)));
  epochs_done_ = int(file.integer_setting("epochs_done", 0, 1000000));
  step_ = int(file.integer_setting("step_in_epoch", 0, steps_per_epoch()));
  best_accuracy_ = file.number_setting("best_val_accuracy");
  best_loss_ = file.number_setting("best_val_loss");
}

}  // namespace focus
