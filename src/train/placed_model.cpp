#include "train/placed_model.h"

#include <algorithm>

namespace focus {

PlacedModel::PlacedModel(Device<float>& device, const ModelSettings& settings,
                         const std::vector<uint64_t>& seeds)
    : device_(device),
      model_(settings),
      runs_(int(seeds.size())),
      parameters_(model_.parameter_count()),
      stride_((parameters_ + 3) / 4 * 4),  // every piece starts at a multiple of 16 bytes
      values_(device, seeds.size() * stride_),
      gradients_(device, seeds.size() * stride_),
      positions_(device, {model_.positions().begin(), model_.positions().end()}) {
  device.fill(values(), values_.size(), 0.f);
  zero_gradients();
  model_.place(values(), gradients(), positions_.data());
  device.set_runs(seeds, stride_);
}

void PlacedModel::upload(int run, const Model<float>& from) {
  size_t at = size_t(run) * stride_;
  for (const Parameter<float>& p : from.parameters()) {
    values_.set(at, p.value.data(), p.value.size());
    at += p.value.size();
  }
}

void PlacedModel::set_rate_factors(int run, const Model<float>& from) {
  std::vector<float> factors;
  for (const Parameter<float>& p : from.parameters())
    factors.insert(factors.end(), p.value.size(), float(p.rate_factor));
  const bool all_one = std::all_of(factors.begin(), factors.end(), [](float f) { return f == 1; });
  if (all_one && rate_factors_.size() == 0) return;
  if (rate_factors_.size() == 0)
    rate_factors_ = DeviceBuffer<float>(device_, std::vector<float>(size_t(runs_) * stride_, 1.f));
  rate_factors_.set(size_t(run) * stride_, factors.data(), factors.size());
}

void PlacedModel::download(int run, Model<float>& to) const {
  std::vector<float> all(parameters_);
  values_.get(size_t(run) * stride_, all.data(), all.size());
  const float* from = all.data();
  for (Parameter<float>& p : to.parameters()) {
    std::copy(from, from + p.value.size(), p.value.begin());
    from += p.value.size();
  }
}

void PlacedModel::download_gradients(int run, Model<float>& to) const {
  std::vector<float> all(parameters_);
  gradients_.get(size_t(run) * stride_, all.data(), all.size());
  const float* from = all.data();
  for (Parameter<float>& p : to.parameters()) {
    std::copy(from, from + p.value.size(), p.gradient_value.begin());
    from += p.value.size();
  }
}

}  // namespace focus
