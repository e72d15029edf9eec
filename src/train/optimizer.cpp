#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

namespace focus {

OptimizerKind optimizer_of(std::string_view name) {
  if (name == "sgd") return OptimizerKind::sgd;
  if (name == "adam") return OptimizerKind::adam;
  fail_input("optimizer '", name, "' is unknown: use sgd or adam");
}

const char* name_of(OptimizerKind kind) {
  return kind == OptimizerKind::sgd ? "sgd" : "adam";
}

template <class T>
double gradient_norm(const std::deque<Parameter<T>>& parameters) {
  double total = 0;
  for (const Parameter<T>& p : parameters) {
    // Eight sums side by side: one alone would wait for each addition. Their order is fixed.
    double part[8] = {};
    const size_t n = p.gradient_value.size();
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
      for (size_t l = 0; l < 8; ++l) {
        const double g = double(p.gradient_value[i + l]);
        part[l] += g * g;
      }
    for (; i < n; ++i) part[0] += double(p.gradient_value[i]) * double(p.gradient_value[i]);
    for (double x : part) total += x;
  }
  return std::sqrt(total);
}

double clip_factor(double norm, double clip) {
  return clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1.0;
}

template <class T>
Optimizer<T>::Optimizer(OptimizerKind kind, const std::deque<Parameter<T>>& parameters)
    : kind_(kind) {
  if (kind != OptimizerKind::adam) return;
  for (const Parameter<T>& p : parameters) {
    m_.emplace_back(p.value.size());
    v_.emplace_back(p.value.size());
  }
}

template <class T>
void Optimizer<T>::step(std::deque<Parameter<T>>& parameters, double lr, double gradient_factor) {
  ++steps_;
  const T factor = T(gradient_factor);
  if (kind_ == OptimizerKind::sgd) {
    for (Parameter<T>& p : parameters)
      for (size_t i = 0; i < p.value.size(); ++i)
        p.value[i] -= T(lr) * (factor * p.gradient_value[i]);
    return;
  }
  const double beta1 = 0.9, beta2 = 0.999;
  // lr · m̂ / (√v̂ + ε) = rate · m / (√v · root + ε)
  const T rate = T(lr / (1 - std::pow(beta1, double(steps_))));
  const T root = T(1 / std::sqrt(1 - std::pow(beta2, double(steps_))));
  for (size_t p = 0; p < parameters.size(); ++p)
    for (size_t i = 0; i < parameters[p].value.size(); ++i) {
      const T g = factor * parameters[p].gradient_value[i];
      T &m = m_[p][i], &v = v_[p][i];
      m = T(beta1) * m + T(1 - beta1) * g;
      v = T(beta2) * v + T(1 - beta2) * g * g;
      parameters[p].value[i] -= rate * m / (std::sqrt(v) * root + T(1e-8));
    }
}

#define FOCUS_INSTANTIATE(T)                                      \
  template double gradient_norm(const std::deque<Parameter<T>>&); \
  template class Optimizer<T>;
FOCUS_INSTANTIATE(float)
FOCUS_INSTANTIATE(double)
#undef FOCUS_INSTANTIATE

}  // namespace focus
