#include "cuda/stepper/graph_stepper.h"

#include <algorithm>

#include "error.h"

namespace focus::gpu {

namespace {

constexpr int steps_ahead = 16;  // that the device may be behind when a stop is asked for
constexpr int evaluated_numbers = 1 << 24;  // of queries, in one pass

std::vector<uint64_t> seeds_of(const PlacedRuns& runs) {
  std::vector<uint64_t> seeds;
  for (int r = 0; r < runs.count(); ++r) seeds.push_back(runs.seed(r));
  return seeds;
}

}  // namespace

GraphStepper::GraphStepper(const StepSettings& settings, std::vector<StepRun> runs, bool fused,
                           bool recorded)
    : settings_(settings),
      runs_(settings, std::move(runs)),
      recorded_(recorded),
      lists_(settings.model.attention, settings.model.length),
      seeds_(seeds_of(runs_)),
      training_(Streams::Priority::high, model_of(runs_.values(), fused)),
      evaluation_(Streams::Priority::low, model_of(runs_.snapshot(), fused)),
      bad_steps_(size_t(runs_.count())),
      squares_(update_squares(runs_.runs(), runs_.parameters())) {
  const size_t R = size_t(runs_.count());
  const auto part = [&](Part& to, Split split, int batch, const int* order) {
    to.data = &runs_.part(split);
    to.batch = std::max(1, std::min(batch, to.data->rows));
    to.source = {to.data->tokens_on_device.data(),
                 to.data->labels_on_device.data(),
                 order,
                 to.data->rows,
                 to.data->length,
                 to.data->row_stride,
                 to.data->order_stride,
                 settings.model.targets(),
                 to.batch};
  };
  const ModelSettings& m = settings.model;
  const size_t in_a_row = R * size_t(m.length) * size_t(m.attention.heads) * size_t(m.d_model);
  const int at_once = int(evaluated_numbers / in_a_row);
  part(train_, Split::train, settings.batch, runs_.order());
  part(train_rows_, Split::train, at_once, nullptr);
  part(val_rows_, Split::held_out, at_once, nullptr);
  place_passes(training_, {&train_}, true);
  place_passes(evaluation_, {&train_rows_, &val_rows_}, false);
  const size_t most_rows = R * size_t(std::max(train_.data->rows, val_rows_.data->rows));
  row_loss_ = DeviceArray<double>(most_rows);
  row_right_ = DeviceArray<int>(most_rows);
  losses_ = DeviceArray<float>(R * size_t(train_.batches()));
}

ModelOnDevice GraphStepper::model_of(float* weights, bool fused) const {
  return {.settings = settings_.model,
          .runs = runs_.runs(),
          .precision = settings_.precision,
          .fused = fused,
          .weights = weights,
          .gradients = runs_.gradients(),
          .positions = runs_.positions(),
          .seeds = seeds_.data(),
          .lists = &lists_,
          .at = ParameterPlaces(settings_.model)};
}

// First without memory, to measure: the largest pass decides.
void GraphStepper::place_passes(Desk& desk, std::initializer_list<Part*> parts, bool training) {
  size_t bytes = 0;
  for (const bool measured : {false, true}) {
    if (measured) desk.memory = DeviceArray<char>(bytes);
    for (Part* part : parts) {
      const int rows = part->data->rows;
      for (auto [to, batch] : {std::pair(&part->full, rows >= part->batch ? part->batch : 0),
                               std::pair(&part->last, rows % part->batch)}) {
        if (batch == 0) continue;
        Layout layout = measured ? Layout(desk.memory.data()) : Layout();
        *to = std::make_unique<ModelPass>(desk.model, batch, training, layout);
        bytes = std::max(bytes, layout.used());
      }
    }
  }
}

void GraphStepper::load(int run, const Model<float>& model, const Optimizer<float>& optimizer) {
  const float* const before = runs_.rate_factors();
  runs_.load(run, model, optimizer);
  if (runs_.rate_factors() != before) train_.full_record.forget(), train_.last_record.forget();
}

void GraphStepper::store(int run, Model<float>& model, Optimizer<float>& optimizer) const {
  runs_.store(run, model, optimizer);
}

void GraphStepper::set_plane(const Model<float>& centre, const Direction& X, const Direction& Y) {
  runs_.set_plane(centre, X, Y);
}
void GraphStepper::move_to(const std::vector<PlanePoint>& points) {
  runs_.move_to(points);
}

// Forward, backward.
void GraphStepper::compute_gradients(ModelPass& pass) {
  auto& [streams, counters, memory, model] = training_;
  gather_batch(model.runs, train_.source, pass.B, counters.data(), pass.tokens, pass.labels,
               streams.main());
  fill_numbers(model.gradients, size_t(runs_.count()) * runs_.stride(), 0, streams.main());
  pass.forward(streams);
  pass.backward(streams);
  streams.join();
}

// A whole step: forward, backward, clip, update.
void GraphStepper::train_step(ModelPass& pass) {
  compute_gradients(pass);
  auto& [streams, counters, memory, model] = training_;
  update_parameters(model.runs,
                    {.adam = settings_.optimizer == OptimizerKind::adam,
                     .clip = settings_.clip,
                     .loss = pass.loss,
                     .value = model.weights,
                     .gradient = model.gradients,
                     .m = runs_.m(),
                     .v = runs_.v(),
                     .rate = runs_.rates(),
                     .parameters = runs_.parameters(),
                     .rate_factor = runs_.rate_factors()},
                    counters.data(), squares_.data(), bad_steps_.data(), streams.main());
  finish_step(model.runs, counters.data(), pass.loss, losses_.data(), train_.batches(),
              streams.main());
}

void GraphStepper::evaluate_step(Part& part, ModelPass& pass) {
  auto& [streams, counters, memory, model] = evaluation_;
  gather_batch(model.runs, part.source, pass.B, counters.data(), pass.tokens, pass.labels,
               streams.main());
  pass.forward(streams);
  pass.evaluate(streams, part.source, counters.data(), row_loss_.data(), row_right_.data());
  finish_step(model.runs, counters.data(), nullptr, nullptr, 0, streams.main());
}

void GraphStepper::run(Desk& desk, Part& part, int step, const std::function<void()>& work) {
  if (emulated()) desk.memory.poison();  // no step may read what another left
  if (recorded_)
    part.record(step).run(desk.streams, work);
  else
    work();
}

// The epoch's orders, rates and counters; no step has failed.
void GraphStepper::begin(const std::vector<Epoch>& epochs, int first) {
  if (epochs.size() != size_t(runs_.count()))
    fail_input(epochs.size(), " epochs for ", runs_.count(), " runs");
  runs_.send(epochs);
  const uint32_t before = epochs[0].steps_before + uint32_t(first);
  training_.counters.set({{before, before, uint32_t(first)}});
  bad_steps_.set(std::vector<BadStep>(bad_steps_.size()));
}

std::vector<BadStep> GraphStepper::bad_steps() {
  std::vector<BadStep> seen(bad_steps_.size());
  training_.streams.download(seen.data(), bad_steps_.data(), seen.size() * sizeof(BadStep));
  return seen;
}

std::vector<StepsMade> GraphStepper::train(const std::vector<Epoch>& epochs, int first, int count,
                                           const std::atomic<bool>& stop) {
  if (first < 0 || count < 1 || first + count > train_.batches())
    fail_input("steps ", first, " to ", first + count - 1, " of ", train_.batches());
  begin(epochs, first);
  int step = first;
  for (; step < first + count && !stop.load(); ++step) {
    run(training_, train_, step, [&] { train_step(train_.pass(step)); });
    if ((step + 1) % steps_ahead == 0) bad_steps();  // waits for the device
  }
  const std::vector<BadStep> bad = bad_steps();
  const std::vector<float> losses = losses_.host();
  std::vector<StepsMade> made;
  for (size_t r = 0; r < bad.size(); ++r) {
    const bool failed = bad[r].step >= 0;
    const auto of_run = losses.begin() + ptrdiff_t(r) * train_.batches();
    made.push_back({{of_run + first, of_run + (failed ? bad[r].step + 1 : step)},
                    failed,
                    failed ? double(bad[r].norm) : 0});
  }
  return made;
}

void GraphStepper::take_snapshot() {
  training_.streams.copy(runs_.snapshot(), runs_.values(), runs_.value_bytes());
  training_.streams.wait();
}

std::optional<std::vector<Evaluation>> GraphStepper::evaluate_snapshot(
    Split split, const std::atomic<bool>& stop) {
  use_device(device_number_);
  Part& part = split == Split::train ? train_rows_ : val_rows_;
  evaluation_.counters.set({Counters{}});
  for (int step = 0; step < part.batches(); ++step) {
    if (stop.load()) return std::nullopt;
    run(evaluation_, part, step, [&] { evaluate_step(part, part.pass(step)); });
  }
  const size_t rows = size_t(part.data->rows);
  std::vector<double> losses(rows * size_t(runs_.count()));
  std::vector<int> right(losses.size());
  evaluation_.streams.download(losses.data(), row_loss_.data(), losses.size() * sizeof(double));
  evaluation_.streams.download(right.data(), row_right_.data(), right.size() * sizeof(int));
  std::vector<Evaluation> results;
  for (size_t first = 0; first < losses.size(); first += rows) {
    double loss = 0;
    double count = 0;
    for (size_t row = first; row < first + rows; ++row) loss += losses[row], count += right[row];
    results.push_back(
        {loss / double(rows), 100.0 * count / (double(rows) * settings_.model.targets())});
  }
  return results;
}

std::vector<Gradients> GraphStepper::gradients(const std::vector<Epoch>& epochs, int step) {
  begin(epochs, step);
  if (emulated()) training_.memory.poison();
  ModelPass& pass = train_.pass(step);
  compute_gradients(pass);
  const ModelSettings& s = settings_.model;
  const size_t R = size_t(runs_.count()), N = size_t(s.classes);
  const size_t numbers = size_t(pass.B) * size_t(s.targets()) * N;
  std::vector<float> loss(R), logits(R * numbers);
  training_.streams.download(loss.data(), pass.loss, R * sizeof(float));
  pass.for_logits(training_.streams, [&](size_t first, size_t rows, const float* piece) {
    training_.streams.download(logits.data() + first * N, piece, rows * N * sizeof(float));
  });
  std::vector<Gradients> all;
  for (size_t r = 0; r < R; ++r) {
    const auto of_run = logits.begin() + ptrdiff_t(r * numbers);
    all.push_back({loss[r], {of_run, of_run + ptrdiff_t(numbers)}, runs_.gradients_of(int(r))});
  }
  return all;
}

std::vector<AttentionInputs> GraphStepper::attention_inputs(int run, Split split, int first,
                                                            int count) {
  const PlacedRuns::Part& data = runs_.part(split);
  check_rows(data.rows, first, count);
  Layout measured;
  ModelPass(training_.model, count, false, measured);
  DeviceArray<char> memory(measured.used());
  if (emulated()) memory.poison();
  Layout layout(memory.data());
  ModelPass pass(training_.model, count, false, layout);
  const BatchSource source{data.tokens_on_device.data(),
                           data.labels_on_device.data(),
                           nullptr,
                           data.rows,
                           data.length,
                           data.row_stride,
                           data.order_stride,
                           settings_.model.targets(),
                           1};  // so that steps count rows
  training_.counters.set({{0, 0, uint32_t(first)}});
  gather_batch(training_.model.runs, source, count, training_.counters.data(), pass.tokens,
               pass.labels, training_.streams.main());
  const ModelSettings& s = settings_.model;
  const size_t rows = size_t(count) * size_t(s.length), C = size_t(s.d_model);
  const size_t HC = size_t(s.attention.heads) * C;
  DeviceArray<float> normed(rows * C), rstd(rows);
  std::vector<AttentionInputs> all;
  const auto visit = [&](int block, const float* x, const float* q, const float* k) {
    const size_t of_run = size_t(run) * rows;
    layer_norm_forward(int(rows), s.d_model,
                       block == 0 ? s.first_layer_norm_epsilon : s.layer_norm_epsilon,
                       x + of_run * C, normed.data(), rstd.data(), training_.streams.main());
    AttentionInputs& inputs = all.emplace_back();
    inputs.x.resize(rows * C), inputs.q.resize(rows * HC), inputs.k.resize(rows * HC);
    training_.streams.download(inputs.x.data(), normed.data(), rows * C * sizeof(float));
    training_.streams.download(inputs.q.data(), q + of_run * HC, rows * HC * sizeof(float));
    training_.streams.download(inputs.k.data(), k + of_run * HC, rows * HC * sizeof(float));
  };
  pass.forward(training_.streams, visit);
  return all;
}

}  // namespace focus::gpu
