#include "cuda/stepper/placed_runs.h"

#include <algorithm>

#include "error.h"

namespace focus::gpu {

PlacedRuns::PlacedRuns(const StepSettings& settings, std::vector<StepRun> runs)
    : runs_(std::move(runs)) {
  const Model<float> model(settings.model);
  for (const Parameter<float>& p : model.parameters()) sizes_.push_back(p.value.size());
  parameters_ = model.parameter_count();
  stride_ = (parameters_ + 3) / 4 * 4;  // every piece starts at a multiple of 16 bytes
  const std::vector<float> zero(runs_.size() * stride_);
  for (DeviceArray<float>* each : {&values_, &snapshot_, &gradients_})
    *each = DeviceArray<float>(zero);
  if (settings.optimizer == OptimizerKind::adam)
    m_ = DeviceArray<float>(zero), v_ = DeviceArray<float>(zero);
  positions_ =
      DeviceArray<float>(std::vector<float>(model.positions().begin(), model.positions().end()));
  train_ = place(&RunData::train), held_out_ = place(&RunData::val);
  order_ = DeviceArray<int>(size_t(train_.rows) * runs_.size());
  rates_ = DeviceArray<float>(runs_.size());
}

PlacedRuns::Part PlacedRuns::place(const PaddedData RunData::*split) const {
  Part part;
  const PaddedData* last = nullptr;
  for (const StepRun& run : runs_) {
    const PaddedData& data = (*run.data).*split;
    if (last && (data.rows != last->rows || data.length != last->length ||
                 data.stride() != last->stride() || data.is_stream() != last->is_stream()))
      fail_input("runs with ", last->rows, " and ", data.rows, " rows do not train together");
    if (&data != last) {  // several runs may share their data
      part.memory.emplace_back(std::vector<int>(data.tokens.begin(), data.tokens.end()));
      part.memory.emplace_back(data.labels);
    }
    last = &data;
    part.tokens.push_back(part.memory.end()[-2].data());
    part.labels.push_back(part.memory.back().data());
  }
  part.rows = last->rows, part.length = last->length;
  part.row_stride = last->stride(), part.order_stride = last->drawn_stride();
  part.tokens_on_device = DeviceArray<const int*>(part.tokens);
  if (!last->is_stream()) part.labels_on_device = DeviceArray<const int*>(part.labels);
  return part;
}

void PlacedRuns::load(int run, const Model<float>& model, const Optimizer<float>& optimizer) {
  const auto send = [&](const DeviceArray<float>& to, const std::vector<float>& all) {
    copy_to_device(to.data() + size_t(run) * stride_, all.data(), all.size() * sizeof(float));
  };
  std::vector<float> all;
  for (const Parameter<float>& p : model.parameters())
    all.insert(all.end(), p.value.begin(), p.value.end());
  send(values_, all);
  all.clear();
  for (const Parameter<float>& p : model.parameters())
    all.insert(all.end(), p.value.size(), float(p.rate_factor));
  const bool all_one =
      std::all_of(all.begin(), all.end(), [](float factor) { return factor == 1; });
  if (!all_one && !rate_factors())
    rate_factors_ = DeviceArray<float>(std::vector<float>(runs_.size() * stride_, 1.f));
  if (rate_factors()) send(rate_factors_, all);
  if (!m()) return;
  for (auto [to, moments] :
       {std::pair(&m_, &optimizer.first_moments()), std::pair(&v_, &optimizer.second_moments())}) {
    all.clear();
    for (const std::vector<float>& of_one : *moments)
      all.insert(all.end(), of_one.begin(), of_one.end());
    send(*to, all);
  }
}

void PlacedRuns::store(int run, Model<float>& model, Optimizer<float>& optimizer) const {
  // All of it first: a device that fails on the way leaves the run as it was.
  const auto fetch = [&](const DeviceArray<float>& from) {
    std::vector<float> all;
    if (!from.data()) return all;  // SGD's moments
    all.resize(parameters_);
    copy_to_host(all.data(), from.data() + size_t(run) * stride_, all.size() * sizeof(float));
    return all;
  };
  const std::vector<float> values = fetch(values_), first = fetch(m_), second = fetch(v_);
  const auto take = [&](const std::vector<float>& all, const auto& to) {
    const float* next = all.data();
    for (size_t p = 0; p < sizes_.size(); next += sizes_[p++])
      std::copy(next, next + sizes_[p], to(p).begin());
  };
  take(
      values, [&](size_t p) -> auto& { return model.parameters()[p].value; });
  if (!m()) return;
  take(
      first, [&](size_t p) -> auto& { return optimizer.first_moments()[p]; });
  take(
      second, [&](size_t p) -> auto& { return optimizer.second_moments()[p]; });
}

void PlacedRuns::set_plane(const Model<float>& centre, const Direction& X, const Direction& Y) {
  std::vector<double> all;
  for (const Parameter<float>& p : centre.parameters())
    all.insert(all.end(), p.value.begin(), p.value.end());
  for (const Direction* direction : {&X, &Y})
    for (const std::vector<double>& tensor : *direction)
      all.insert(all.end(), tensor.begin(), tensor.end());
  plane_ = DeviceArray<double>(all), points_ = DeviceArray<double>(2 * runs_.size());
}

void PlacedRuns::move_to(const std::vector<PlanePoint>& points) {
  check_points(points.size(), runs_.size());
  std::vector<double> numbers;
  for (const PlanePoint& p : points) numbers.insert(numbers.end(), {p.x, p.y});
  points_.set(numbers);
  place_on_plane(runs(), parameters_, plane_.data(), points_.data(), values(), nullptr);
  synchronize();  // the steppers' streams do not wait for it
}

std::vector<std::vector<float>> PlacedRuns::gradients_of(int run) const {
  std::vector<float> all(parameters_);
  copy_to_host(all.data(), gradients() + size_t(run) * stride_, all.size() * sizeof(float));
  std::vector<std::vector<float>> tensors;
  auto next = all.begin();
  for (const size_t size : sizes_) {
    tensors.emplace_back(next, next + ptrdiff_t(size));
    next += ptrdiff_t(size);
  }
  return tensors;
}

void PlacedRuns::send(const std::vector<Epoch>& epochs) {
  std::vector<int> order;
  std::vector<float> rates;
  for (const Epoch& epoch : epochs) {
    if (epoch.order.size() != size_t(train_.rows))
      fail_input("an epoch's order has ", epoch.order.size(), " rows, the data ", train_.rows);
    order.insert(order.end(), epoch.order.begin(), epoch.order.end());
    rates.push_back(float(epoch.rate));
  }
  order_.set(order), rates_.set(rates);
}

}  // namespace focus::gpu
