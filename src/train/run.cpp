#include "train/run.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "files/data_file.h"
#include "rng.h"
#include "tasks/dataset.h"
#include "tasks/text.h"
//@ from 15
#include "text/text_data.h"
//@ end
#include "train/checkpoint.h"
#include "train/cpu_stepper.h"

namespace focus {

namespace {

// What `work` throws, if it does.
template <class F>
std::optional<RunError> error_of(const F& work) {
  try {
    work();
  } catch (const RunError& error) {
    return error;
  }
  return std::nullopt;
}

}  // namespace

std::shared_ptr<const RunData> make_run_data(const RunSettings& s, uint64_t seed) {
  const Task& task = find_task(s.task);
  //@ from 15
  if (is_text(task)) {
    TextData text = read_text_data(s.text_data);
    const int vocabulary = text.tokenizer.vocabulary();
    return std::make_shared<const RunData>(RunData{
        windows_of(std::move(text.train.tokens), vocabulary, s.length, s.train_size, "train-size"),
        windows_of(std::move(text.held_out.tokens), vocabulary, s.length, s.val_size, "val-size"),
        text.tokenizer.file_text()});
  }
  //@ end
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
  return std::make_shared<const RunData>(RunData{pad(train), pad(val), {}});
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

StepSettings Run::step_settings() const {
  return {.model = model_.settings(),
          .optimizer = settings_.optimizer,
          .clip = settings_.clip,
          .batch = std::min(settings_.batch, data_->train.rows),
          .precision = settings_.precision};
}

Epoch Run::epoch(int later) const {
  const int before = epochs_done_ + later;
  Epoch epoch{std::vector<int>(size_t(data_->train.rows)),
              decayed_rate(settings_.lr, settings_.lr_decay, before),
              uint32_t(before) * uint32_t(steps_per_epoch())};
  Rng rng(seed_, Stream::order, uint32_t(before));
  if (data_->train.is_stream()) {
    const uint32_t places = uint32_t(window_places(data_->train));
    for (int& begin : epoch.order) begin = int(rng.below(places));
    return epoch;
  }
  std::iota(epoch.order.begin(), epoch.order.end(), 0);
  rng.shuffle(epoch.order);
  return epoch;
}

int Run::steps_per_epoch() const {
  return (data_->train.rows + settings_.batch - 1) / settings_.batch;
}

void Run::take_steps(const Stepper& stepper, int number, int steps) {
  stepper.store(number, model_, optimizer_);
  optimizer_.set_steps_taken(optimizer_.steps_taken() + steps);
  step_ += steps;
}

void Run::fail_at_step(int step, double loss, double norm) const {
  fail_run("seed ", seed_, ", epoch ", epochs_done_ + 1, ", step ", step + 1, ": the loss is ",
           loss, " and the gradient's norm ", norm, " (task ", settings_.task, ", attention ",
           name_of(settings_.attention), ", lr ", settings_.lr,
           "); try a smaller --lr, the last good checkpoint is kept");
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
  if (!data_->tokenizer.empty()) file.metadata["tokenizer"] = data_->tokenizer;
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

std::vector<StepsMade> make_steps(Stepper& stepper, const std::vector<Run*>& runs,
                                  const std::atomic<bool>& stop) {
  const int begin = runs[0]->steps_in_epoch(), end = runs[0]->steps_per_epoch();
  if (begin == end) return std::vector<StepsMade>(runs.size());
  std::vector<Epoch> epochs;
  for (const Run* run : runs) epochs.push_back(run->epoch());
  return stepper.train(epochs, begin, end - begin, stop);
}

std::vector<EpochResult> take_steps(const Stepper& stepper, const std::vector<Run*>& runs,
                                    const std::vector<StepsMade>& made) {
  std::vector<EpochResult> results(runs.size());
  for (size_t r = 0; r < runs.size(); ++r) {
    const int steps = int(made[r].losses.size());
    if (made[r].failed)
      results[r].error = error_of([&] {
        runs[r]->fail_at_step(runs[r]->steps_in_epoch() + steps - 1, double(made[r].losses.back()),
                              made[r].norm);
      });
    else if (steps > 0)
      runs[r]->take_steps(stepper, int(r), steps);
  }
  return results;
}

bool can_evaluate(const std::vector<Run*>& runs, const std::vector<EpochResult>& results) {
  for (size_t r = 0; r < runs.size(); ++r)
    if (!results[r].error) return runs[r]->steps_in_epoch() == runs[r]->steps_per_epoch();
  return false;
}

void evaluate_epoch(Stepper& stepper, const std::vector<Run*>& runs,
                    std::vector<EpochResult>& results, const std::atomic<bool>& stop) {
  const auto train = stepper.evaluate_snapshot(Split::train, stop);
  const auto val = train ? stepper.evaluate_snapshot(Split::held_out, stop) : std::nullopt;
  if (!val) return;
  for (size_t r = 0; r < runs.size(); ++r)
    if (!results[r].error)
      results[r].error =
          error_of([&] { results[r].row = runs[r]->finish_epoch((*train)[r], (*val)[r]); });
}

std::vector<EpochResult> run_epoch(Stepper& stepper, const std::vector<Run*>& runs,
                                   const std::atomic<bool>& stop) {
  std::vector<EpochResult> results = take_steps(stepper, runs, make_steps(stepper, runs, stop));
  if (!can_evaluate(runs, results)) return results;
  stepper.take_snapshot();
  evaluate_epoch(stepper, runs, results, stop);
  return results;
}

std::optional<EpochMetrics> run_epoch(Run& run, Tape<float>& tape, const std::atomic<bool>& stop) {
  CpuStepper stepper(tape, run.step_settings(), {run.step_run()});
  run.load_into(stepper, 0);
  const EpochResult result = run_epoch(stepper, {&run}, stop)[0];
  if (result.error) throw *result.error;
  return result.row;
}

}  // namespace focus
