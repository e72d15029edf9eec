#include "train/run_group.h"

#include <algorithm>
#include <cmath>

#include "ops/cross_entropy.h"

namespace focus {

namespace {

constexpr int steps_ahead = 16;          // that the device may be behind when a stop is asked for
constexpr int steps_a_launch = 64;       // of a step kernel; a stop waits for its end
constexpr int evaluated_tokens = 65536;  // in one pass

std::vector<uint64_t> seeds_of(const std::vector<Run*>& runs) {
  std::vector<uint64_t> seeds;
  for (const Run* run : runs) seeds.push_back(run->seed());
  return seeds;
}

const PaddedData& training_data(const Run& run) {
  return run.data().train;
}
const PaddedData& held_out_data(const Run& run) {
  return run.data().val;
}

}  // namespace

RunGroup::RunGroup(Device<float>& device, std::vector<Run*> runs, bool by_kernel)
    : device_(device),
      runs_(std::move(runs)),
      model_(device, runs_[0]->model().settings(), seeds_of(runs_)),
      tape_(workers_, &device) {
  const size_t R = runs_.size();
  const RunSettings& settings = runs_[0]->settings();
  const int batch = std::min(settings.batch, runs_[0]->data().train.rows);
  const int length = runs_[0]->data().train.length;
  const int at_once = std::max(1, evaluated_tokens / (length * int(R)));
  train_ = place(training_data, batch);
  val_rows_ = place(held_out_data, at_once);
  train_rows_.rows = train_.rows, train_rows_.length = length;
  train_rows_.batch = std::min(at_once, train_.rows);
  order_ = DeviceBuffer<int>(device, size_t(train_.rows) * R);
  rates_ = DeviceBuffer<float>(device, std::vector<float>(R));
  if (settings.optimizer == OptimizerKind::adam)
    for (DeviceBuffer<float>* moments : {&m_, &v_}) {
      *moments = DeviceBuffer<float>(device, R * model_.stride());
      device.fill(moments->data(), moments->size(), 0.f);
    }
  for (size_t r = 0; r < R; ++r) model_.set_rate_factors(int(r), runs_[r]->model());
  device.set_precision(settings.precision);
  if (by_kernel) {
    kernel_ = device.step_kernel(model_.model().settings(), settings.optimizer, batch, int(R));
    kernel_->set_precision(settings.precision);
  } else {
    record_steps();
  }
  for (size_t r = 0; r < R; ++r) model_.upload(int(r), runs_[r]->model());
  for_moments([](DeviceBuffer<float>& on_device, size_t at, std::vector<float>& numbers) {
    on_device.set(at, numbers.data(), numbers.size());
  });
}

// The memory and the records of steps that go operation by operation.
void RunGroup::record_steps() {
  const size_t R = runs_.size();
  for (Part* part : {&train_, &train_rows_, &val_rows_})
    part->full = device_.new_record(), part->last = device_.new_record();
  const size_t rows = size_t(std::max({train_.batch, train_rows_.batch, val_rows_.batch})) * R;
  tokens_ = DeviceBuffer<int>(device_, rows * size_t(train_.length));
  labels_ = DeviceBuffer<int>(device_, rows);
  const size_t most_rows = size_t(std::max(train_.rows, val_rows_.rows)) * R;
  row_loss_ = DeviceBuffer<double>(device_, most_rows);
  row_right_ = DeviceBuffer<uint8_t>(device_, most_rows);
  warm_up();
}

// Calls f(buffer, place, vector) for each parameter's two moments.
template <class F>
void RunGroup::for_moments(const F& f) {
  for (size_t r = 0; r < runs_.size(); ++r) {
    Optimizer<float>& optimizer = runs_[r]->optimizer();
    size_t at = r * model_.stride();
    for (size_t p = 0; p < optimizer.first_moments().size(); ++p) {
      f(m_, at, optimizer.first_moments()[p]);
      f(v_, at, optimizer.second_moments()[p]);
      at += optimizer.first_moments()[p].size();
    }
  }
}

RunGroup::Part RunGroup::place(const PaddedData& (*part)(const Run&), int batch) {
  Part placed;
  const PaddedData* last = nullptr;
  for (const Run* run : runs_) {
    const PaddedData& data = part(*run);
    if (&data != last) {  // several runs may share their data
      const auto as_int = [](const auto& ids) { return std::vector<int>(ids.begin(), ids.end()); };
      placed.tokens.emplace_back(device_, as_int(data.tokens));
      placed.labels.emplace_back(device_, as_int(data.labels));
    }
    last = &data;
    placed.run_tokens.push_back(placed.tokens.back().data());
    placed.run_labels.push_back(placed.labels.back().data());
  }
  placed.token_arrays = DeviceBuffer<const int*>(device_, placed.run_tokens);
  placed.label_arrays = DeviceBuffer<const int*>(device_, placed.run_labels);
  placed.rows = last->rows, placed.length = last->length;
  placed.batch = std::min(batch, last->rows);
  return placed;
}

Device<float>::Source RunGroup::source(const Part& part, const int* order) const {
  const Part& data = &part == &train_rows_ ? train_ : part;  // the same rows
  return {data.token_arrays.data(),
          data.label_arrays.data(),
          order,
          part.rows,
          part.length,
          part.batch};
}

void RunGroup::train_step(int batch) {
  device_.gather(source(train_, order_.data()), batch, tokens_.data(), labels_.data());
  model_.zero_gradients();
  tape_.reset(true, Noise{true, 0, 0, 0});  // the seeds and the step are on the device
  const Tensor<float> loss = cross_entropy(
      tape_, model_.model().forward(tape_, tokens_.data(), batch * model_.runs()), labels_.data());
  tape_.backward(loss);
  const RunSettings& s = runs_[0]->settings();
  device_.update(tape_, {s.optimizer == OptimizerKind::adam, s.clip, loss.data, model_.values(),
                         model_.gradients(), m_.data(), v_.data(), rates_.data(),
                         model_.parameters(), model_.rate_factors()});
  device_.finish_step();
}

void RunGroup::evaluate_step(Part& part, int batch) {
  const Device<float>::Source from = source(part, nullptr);
  device_.gather(from, batch, tokens_.data(), labels_.data());
  tape_.reset(false);
  const Tensor<float> logits = model_.model().forward(tape_, tokens_.data(), batch * model_.runs());
  device_.row_losses(logits, labels_.data(), from, row_loss_.data(), row_right_.data());
  device_.finish_step();
}

// Each kind of pass once, while all weights are 0 and nothing can be lost: the tape's memory then
// has its final size and place, which recorded steps rely on.
void RunGroup::warm_up() {
  send_order();
  device_.set_counters({});
  train_step(train_.batch);
  for (Part* part : {&train_rows_, &val_rows_}) {
    device_.set_counters({});
    evaluate_step(*part, part->batch);
  }
  tape_.reset(false);
  device_.take_bad_steps();
}

void RunGroup::send_order() {
  std::vector<int> all;
  std::vector<float> rates;
  for (const Run* run : runs_) {
    const std::vector<int> order = run->epoch_order();
    all.insert(all.end(), order.begin(), order.end());
    rates.push_back(float(run->rate()));
  }
  order_.set(0, all.data(), all.size());
  rates_.set(0, rates.data(), rates.size());
}

// Steps from `begin` on, to `end` or to where they were when a stop was asked for.
int RunGroup::recorded_steps(int begin, int end, const std::atomic<bool>& stop) {
  device_.set_counters(
      {uint64_t(runs_[0]->optimizer().steps_taken()), runs_[0]->noise_step(), uint32_t(begin)});
  int step = begin;
  for (; step < end && !stop.load(); ++step) {
    const int batch = std::min(train_.batch, train_.rows - step * train_.batch);
    (batch == train_.batch ? train_.full : train_.last)->run([&] { train_step(batch); });
    if ((step + 1) % steps_ahead == 0) fail_on_bad_steps();
  }
  fail_on_bad_steps();
  return step;
}

int RunGroup::steps_by_kernel(int begin, int end, const std::atomic<bool>& stop) {
  const std::vector<OneLaunchRun> runs = kernel_runs(train_);
  int step = begin;
  while (step < end && !stop.load()) {
    const int steps = std::min(steps_a_launch, end - step);
    const std::vector<OneLaunchSteps> made = kernel_->train(runs, step, steps);
    for (size_t r = 0; r < made.size(); ++r)
      if (made[r].failed) {
        failed_ = r;
        runs_[r]->fail_at_step(step + int(made[r].losses.size()) - 1, double(made[r].losses.back()),
                               made[r].norms.back());
      }
    step += steps;
  }
  return step;
}

std::vector<OneLaunchRun> RunGroup::kernel_runs(const Part& part) const {
  const Part& data = &part == &train_rows_ ? train_ : part;  // the same rows
  std::vector<OneLaunchRun> all;
  for (size_t r = 0; r < runs_.size(); ++r) {
    const Run& run = *runs_[r];
    const size_t at = r * model_.stride();
    all.push_back({.parameters = model_.values() + at,
                   .gradients = model_.gradients() + at,
                   .m = m_.size() > 0 ? m_.data() + at : nullptr,
                   .v = v_.size() > 0 ? v_.data() + at : nullptr,
                   .tokens = data.run_tokens[r],
                   .labels = data.run_labels[r],
                   .order = order_.data() + r * size_t(train_.rows),
                   .rows = data.rows,
                   .seed = run.seed(),
                   .steps_before = run.noise_step() - uint32_t(run.steps_in_epoch()),
                   .lr = run.rate(),
                   .clip = run.settings().clip,
                   .rate_factors = model_.rate_factors() ? model_.rate_factors() + at : nullptr});
  }
  return all;
}

bool RunGroup::run_epoch(const std::atomic<bool>& stop,
                         std::vector<std::optional<EpochMetrics>>& rows) {
  rows.assign(runs_.size(), std::nullopt);
  const Run& first = *runs_[0];
  const int begin = first.steps_in_epoch(), end = first.steps_per_epoch();
  send_order();
  const int step = kernel_ ? steps_by_kernel(begin, end, stop) : recorded_steps(begin, end, stop);
  bring_back(step - begin);
  std::vector<Evaluation> train, val;
  if (step < end || !evaluate(train_rows_, stop, train) || !evaluate(val_rows_, stop, val))
    return false;
  std::exception_ptr failure;
  for (size_t r = 0; r < runs_.size(); ++r) try {
      rows[r] = runs_[r]->finish_epoch(train[r], val[r]);
    } catch (const RunError&) {
      failed_ = r, failure = std::current_exception();
    }
  if (failure) std::rethrow_exception(failure);
  return true;
}

void RunGroup::fail_on_bad_steps() {
  const std::vector<BadStep> bad = device_.take_bad_steps();
  for (size_t r = 0; r < bad.size(); ++r)
    if (bad[r].step >= 0) {
      failed_ = r;
      runs_[r]->fail_at_step(bad[r].step, double(bad[r].loss), double(bad[r].norm));
    }
}

void RunGroup::bring_back(int steps) {
  for (size_t r = 0; r < runs_.size(); ++r) {
    model_.download(int(r), runs_[r]->model());
    runs_[r]->took_steps(steps);
  }
  for_moments([](DeviceBuffer<float>& on_device, size_t at, std::vector<float>& numbers) {
    on_device.get(at, numbers.data(), numbers.size());
  });
}

bool RunGroup::evaluate(Part& part, const std::atomic<bool>& stop,
                        std::vector<Evaluation>& results) {
  if (stop.load()) return false;
  if (kernel_) {
    results = kernel_->evaluate(kernel_runs(part));
    return true;
  }
  device_.set_counters({});
  for (int first = 0; first < part.rows; first += part.batch) {
    if (stop.load()) return false;
    const int batch = std::min(part.batch, part.rows - first);
    (batch == part.batch ? part.full : part.last)->run([&] { evaluate_step(part, batch); });
  }
  const std::vector<double> losses = row_loss_.host();
  const std::vector<uint8_t> right = row_right_.host();
  for (size_t r = 0; r < runs_.size(); ++r) {
    double loss = 0;
    int count = 0;
    for (size_t row = r * size_t(part.rows); row < (r + 1) * size_t(part.rows); ++row)
      loss += losses[row], count += right[row];
    results.push_back({loss / part.rows, 100.0 * count / part.rows});
  }
  return true;
}

}  // namespace focus
