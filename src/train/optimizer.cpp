#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "enum_names.h"

namespace focus {

static constexpr const char* optimizer_names[] = {"sgd", "adam"};

OptimizerKind optimizer_of(std::string_view name) {
  return value_named<OptimizerKind>(name, optimizer_names, "optimizer");
}

const char* name_of(OptimizerKind kind) {
  return name_among(optimizer_names, kind);
}

template <class T>
double gradient_norm(const std::deque<Parameter<T>>& parameters) {
  double total = 0;
  for (const Parameter<T>& p : parameters) {
    if (p.rate_factor == 0) continue;
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

double decayed_rate(double lr, double decay, int epochs_done) {
  return lr * std::pow(decay, epochs_done);
}

//@ from 12
namespace {

constexpr double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;

// A gradient, times `factor`, enters the running means m of gradients and v of their squares.
template <class T>
void update_moments(const std::vector<T>& gradient, T factor, std::vector<T>& m,
                    std::vector<T>& v) {
  //@ gap 12 adam-moments
  for (size_t i = 0; i < gradient.size(); ++i) {
    const T g = factor * gradient[i];
    m[i] = T(beta1) * m[i] + T(1 - beta1) * g;
    v[i] = T(beta2) * v[i] + T(1 - beta2) * g * g;
  }
  //@ end
}

// w -= lr · m̂ / (√v̂ + ε), at the step that is number t from 1.
template <class T>
void step_by_moments(std::vector<T>& w, const std::vector<T>& m, const std::vector<T>& v, double lr,
                     long t) {
  //@ gap 12 adam-step
  const T rate = T(lr / (1 - std::pow(beta1, double(t))));
  const T root = T(1 / std::sqrt(1 - std::pow(beta2, double(t))));
  for (size_t i = 0; i < w.size(); ++i) {
    const T size = std::sqrt(v[i]) * root + T(epsilon);
    w[i] -= rate * m[i] / size;
  }
  //@ end
}

}  // namespace

//@ end
template <class T>
Optimizer<T>::Optimizer(OptimizerKind kind, const std::deque<Parameter<T>>& parameters)
    : kind_(kind) {
  if (kind == OptimizerKind::sgd) return;
  //@ from 12
  if (kind == OptimizerKind::adam) {
    for (const Parameter<T>& p : parameters) {
      m_.emplace_back(p.value.size());
      v_.emplace_back(p.value.size());
    }
    return;
  }
  //@ end
  fail_input("optimizer '", name_of(kind), "' comes with a later lesson");
}

template <class T>
void Optimizer<T>::step(std::deque<Parameter<T>>& parameters, double lr, double gradient_factor) {
  ++steps_;
  const T factor = T(gradient_factor);
  //@ from 12
  if (kind_ == OptimizerKind::adam) {
    for (size_t p = 0; p < parameters.size(); ++p) {
      const double rate = lr * parameters[p].rate_factor;
      if (rate == 0) continue;
      update_moments(parameters[p].gradient_value, factor, m_[p], v_[p]);
      step_by_moments(parameters[p].value, m_[p], v_[p], rate, steps_);
    }
    return;
  }
  //@ end
  for (Parameter<T>& p : parameters) {
    //@ gap 17 own-rate
    const T rate = T(lr * p.rate_factor);
    if (rate == 0) continue;
    for (size_t i = 0; i < p.value.size(); ++i) p.value[i] -= rate * (factor * p.gradient_value[i]);
    //@ end
  }
}

#define FOCUS_INSTANTIATE(T)                                      \
  template double gradient_norm(const std::deque<Parameter<T>>&); \
  template class Optimizer<T>;
FOCUS_INSTANTIATE(float)
FOCUS_INSTANTIATE(double)
#undef FOCUS_INSTANTIATE

}  // namespace focus
