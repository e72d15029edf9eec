#include "train/cpu_stepper.h"

#include <algorithm>
#include <cmath>

#include "train/evaluate.h"

namespace focus {

template <class T>
T compute_gradients(Model<T>& model, Tape<T>& tape, const int* tokens, const int* labels, int rows,
                    const Noise& noise, std::vector<T>* logits) {
  tape.reset(true, noise);
  model.zero_gradients();
  const ModelSettings& s = model.settings();
  if (logits) logits->resize(size_t(rows) * size_t(s.targets()) * size_t(s.classes));
  const Tensor<T> loss = model.loss(tape, tokens, labels, rows, logits ? logits->data() : nullptr);
  tape.backward(loss);
  return loss.data[0];
}

template <class T>
bool CpuStep<T>::finite() const {
  return std::isfinite(loss) && std::isfinite(norm);
}

template <class T>
CpuStep<T> train_step(Model<T>& model, Optimizer<T>& optimizer, Tape<T>& tape, const int* tokens,
                      const int* labels, int rows, const Noise& noise, double rate, double clip) {
  const T loss = compute_gradients(model, tape, tokens, labels, rows, noise);
  const CpuStep<T> step{loss, gradient_norm(model.parameters())};
  if (step.finite()) optimizer.step(model.parameters(), rate, clip_factor(step.norm, clip));
  return step;
}

#define FOCUS_INSTANTIATE(T)                                                                      \
  template struct CpuStep<T>;                                                                     \
  template T compute_gradients(Model<T>&, Tape<T>&, const int*, const int*, int, const Noise&,    \
                               std::vector<T>*);                                                  \
  template CpuStep<T> train_step(Model<T>&, Optimizer<T>&, Tape<T>&, const int*, const int*, int, \
                                 const Noise&, double, double);
FOCUS_INSTANTIATE(float)
FOCUS_INSTANTIATE(double)
#undef FOCUS_INSTANTIATE

namespace {
void copy_values(const Model<float>& from, Model<float>& to) {
  for (size_t p = 0; p < from.parameters().size(); ++p)
    to.parameters()[p].value = from.parameters()[p].value;
}
void copy_rate_factors(const Model<float>& from, Model<float>& to) {
  for (size_t p = 0; p < from.parameters().size(); ++p)
    to.parameters()[p].rate_factor = from.parameters()[p].rate_factor;
}
}  // namespace

CpuStepper::CpuStepper(Tape<float>& tape, const StepSettings& settings, std::vector<StepRun> runs)
    : tape_(tape), settings_(settings), runs_(std::move(runs)) {
  for (size_t r = 0; r < runs_.size(); ++r) states_.emplace_back(settings);
}

void CpuStepper::load(int run, const Model<float>& model, const Optimizer<float>& optimizer) {
  State& state = states_[size_t(run)];
  copy_values(model, state.model);
  copy_rate_factors(model, state.model);
  state.optimizer = optimizer;
}

void CpuStepper::store(int run, Model<float>& model, Optimizer<float>& optimizer) const {
  const State& state = states_[size_t(run)];
  copy_values(state.model, model);
  optimizer.first_moments() = state.optimizer.first_moments();
  optimizer.second_moments() = state.optimizer.second_moments();
}

void CpuStepper::set_plane(const Model<float>& centre, const Direction& X, const Direction& Y) {
  plane_ = {{}, X, Y};
  for (const Parameter<float>& p : centre.parameters()) plane_.centre.push_back(p.value);
}

void CpuStepper::move_to(const std::vector<PlanePoint>& points) {
  check_points(points.size(), runs_.size());
  for (size_t r = 0; r < runs_.size(); ++r)
    for (size_t p = 0; p < plane_.centre.size(); ++p) {
      const std::vector<float>& from = plane_.centre[p];
      const std::vector<double>&X = plane_.X[p], &Y = plane_.Y[p];
      std::vector<float>& to = states_[r].model.parameters()[p].value;
      for (size_t i = 0; i < from.size(); ++i)
        to[i] = float(double(from[i]) + points[r].x * X[i] + points[r].y * Y[i]);
    }
}

// The batch of step number `step`; returns its rows.
int CpuStepper::gather(const PaddedData& data, const std::vector<int>& order, int step) {
  const int first = step * settings_.batch, rows = std::min(settings_.batch, data.rows - first);
  tokens_.clear(), labels_.clear();
  for (int b = 0; b < rows; ++b) {
    append_drawn(data, order[size_t(first + b)], settings_.model.targets(), tokens_, labels_);
  }
  return rows;
}

Noise CpuStepper::noise(size_t run, const Epoch& epoch, int step) const {
  return {true, runs_[run].seed, epoch.steps_before + uint32_t(step), 0};
}

std::vector<StepsMade> CpuStepper::train(const std::vector<Epoch>& epochs, int first, int count,
                                         const std::atomic<bool>& stop) {
  std::vector<StepsMade> made(runs_.size());
  for (StepsMade& m : made) m.losses.reserve(size_t(count));
  for (int step = first; step < first + count && !stop.load(); ++step)
    for (size_t r = 0; r < runs_.size(); ++r) {
      if (made[r].failed) continue;
      State& state = states_[r];
      const int rows = gather(runs_[r].data->train, epochs[r].order, step);
      state.optimizer.set_steps_taken(long(epochs[r].steps_before) + step);
      const CpuStep<float> s =
          train_step(state.model, state.optimizer, tape_, tokens_.data(), labels_.data(), rows,
                     noise(r, epochs[r], step), epochs[r].rate, settings_.clip);
      made[r].losses.push_back(s.loss);
      if (!s.finite()) made[r].failed = true, made[r].norm = s.norm;
    }
  return made;
}

std::optional<std::vector<Evaluation>> CpuStepper::evaluate_snapshot(
    Split split, const std::atomic<bool>& stop) {
  std::vector<Evaluation> results;
  for (size_t r = 0; r < runs_.size(); ++r) {
    const RunData& data = *runs_[r].data;
    const auto result = focus::evaluate(states_[r].model, tape_,
                                        split == Split::train ? data.train : data.val, &stop);
    if (!result) return std::nullopt;
    results.push_back(*result);
  }
  return results;
}

std::vector<Gradients> CpuStepper::gradients(const std::vector<Epoch>& epochs, int step) {
  std::vector<Gradients> all;
  for (size_t r = 0; r < runs_.size(); ++r) {
    Model<float>& model = states_[r].model;
    Gradients& g = all.emplace_back();
    const int rows = gather(runs_[r].data->train, epochs[r].order, step);
    g.loss = compute_gradients(model, tape_, tokens_.data(), labels_.data(), rows,
                               noise(r, epochs[r], step), &g.logits);
    for (const Parameter<float>& p : model.parameters()) g.parameters.push_back(p.gradient_value);
  }
  return all;
}

std::vector<AttentionInputs> CpuStepper::attention_inputs(int run, Split split, int first,
                                                          int count) {
  const RunData& both = *runs_[size_t(run)].data;
  const PaddedData& data = split == Split::train ? both.train : both.val;
  check_rows(data.rows, first, count);
  tokens_.clear(), labels_.clear();
  for (int row = first; row < first + count; ++row)
    append_row(data, row, settings_.model.targets(), tokens_, labels_);
  tape_.reset(false);
  std::vector<AttentionInputs> all;
  states_[size_t(run)].model.visit_attention(
      tape_, tokens_.data(), count,
      [&](int, const Tensor<float>& x, const Tensor<float>& q, const Tensor<float>& k) {
        all.push_back({{x.data, x.data + x.size()},
                       {q.data, q.data + q.size()},
                       {k.data, k.data + k.size()}});
      });
  return all;
}

}  // namespace focus
